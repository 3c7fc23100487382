import type { SourceView } from '../discovery/chain.ts';
import { hostKey } from '../identity/default-name.ts';
import { merge, type ProofSet } from '../identity/merge.ts';
import { assignNames, type Nameable, type Named, type NameState, NO_NAMES } from '../identity/names.ts';
import { endingsOf, hostOf, nameable, nameableIn } from '../identity/naming.ts';
import type { Note } from '../model/candidate.ts';
import type {
  GoneInstance,
  Instance,
  InstanceState,
  Overview,
  ProbedEndpoint,
  Server,
  Snapshot,
  SourceState,
} from '../model/instance.ts';
import { compare } from '../model/non-empty.ts';
import { inMarks, retryingLine } from '../opencode/waiting.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { goneInstances, type RecordOf, restingInstances } from './gone.ts';
import { snapshotNotes } from './notes.ts';

/** A snapshot, and what the next view needs to keep names stable. */
export interface View {
  readonly snapshot: Snapshot;
  readonly names: NameState;
  readonly gone: ReadonlyMap<string, GoneInstance>;
}

export const EMPTY_VIEW: View = {
  snapshot: { instances: [], resting: [], gone: [], sources: [], notes: [] },
  names: NO_NAMES,
  gone: new Map(),
};

export interface ViewInput {
  readonly records: Iterable<EndpointRecord>;
  readonly recordOf: RecordOf;
  readonly proofs: ProofSet;
  /** Addresses that answer again. Hidden until it is known whether they still lead to the same instance. */
  readonly returning: ReadonlySet<string>;
  readonly sources: readonly SourceView[];
}

/** The fleet as it is now. Pure but for reading `records`. */
export function buildView(previous: View, input: ViewInput): View {
  const { listed, unlisted, crowded, unprobed } = sort(input);
  const merged = merge(listed, input.proofs);
  const works = worksOf(merged.servers);
  const { state, named, gone } = assignNames(
    previous.names,
    works.map(({ names }) => names),
  );
  const running = new Set(works.flatMap(runningIn));
  const all = works.map((work) => {
    const { key } = work.names;
    return shown(work, key, named.get(key) ?? { name: key, aliases: [] }, running);
  });
  const isOld = ({ overview }: Instance): boolean => overview?.isOld === true;
  const kept = restingInstances(gone, previous, merged.servers);
  const rests = new Set([...all.filter(isOld), ...kept].map(({ name }) => name));
  const lost = goneInstances(
    gone.filter(({ name }) => !rests.has(name)),
    previous,
    input.recordOf,
  );
  const notes = snapshotNotes(merged.notes, unlisted, unprobed, crowded);
  return {
    names: state,
    gone: lost,
    snapshot: {
      instances: all.filter((one) => !isOld(one)).toSorted((one, other) => compare(one.name, other.name)),
      resting: [...all.filter(isOld), ...kept],
      gone: [...lost.values()],
      sources: input.sources.map(sourceState),
      notes: [
        ...input.sources.flatMap((source) => source.notes.map(from(source.name))),
        ...notes.map(from('directory')),
      ],
    },
  };
}

interface Sorted {
  readonly listed: readonly ProbedEndpoint[];
  readonly unlisted: readonly EndpointRecord[];
  /** Endpoints with directories that are not asked about, by shown name. */
  readonly crowded: ReadonlyMap<string, EndpointRecord>;
  /** How many wait for their first probe. */
  readonly unprobed: number;
}

function sort({ records, returning }: ViewInput): Sorted {
  const listed: ProbedEndpoint[] = [];
  const unlisted: EndpointRecord[] = [];
  const crowded = new Map<string, EndpointRecord>();
  let unprobed = 0;
  for (const record of records) {
    if (record.healthy && returning.has(record.key)) continue;
    if (record.listed) {
      listed.push(record.copy());
      if (record.unaskedDirectories > 0) crowded.set(record.candidate.claims.name ?? record.id, record);
    } else if (record.unlisted) unlisted.push(record);
    else unprobed += 1;
  }
  return { listed, unlisted, crowded, unprobed };
}

/** What a server does in one directory, and what its name is made of. */
interface Work {
  readonly server: Server;
  readonly directory: string | undefined;
  readonly overview: Overview | undefined;
  readonly names: Nameable;
}

/** Each server in its own directory and in the others that it works in. */
function worksOf(servers: readonly Server[]): readonly Work[] {
  const placeIn = (server: Server, directory: string | undefined): string => `${hostKey(hostOf(server))}\0${directory}`;
  const own = new Set(servers.map((server) => placeIn(server, server.directory)));
  return servers.flatMap((server): Work[] => {
    const latest = latestAsked(server.endpoints);
    const { directory = '' } = server;
    // A directory that is another server's own is listed here only while this server works there.
    const others = [...elsewhereOf(server)].filter(
      ([other, overview]) =>
        other !== directory && (overview.activity.kind !== 'idle' || !own.has(placeIn(server, other))),
    );
    const endings = endingsOf([directory, ...others.map(([other]) => other)]);
    return [
      { server, directory: server.directory, overview: latest?.overview, names: nameable(server) },
      ...others.map(([other, overview]) => ({
        server,
        directory: other,
        overview,
        names: nameableIn(server, other, endings),
      })),
    ];
  });
}

/** The overviews of a server's other directories, each from the endpoint that was asked last. */
function elsewhereOf({ endpoints }: Server): ReadonlyMap<string, Overview> {
  const found = new Map<string, Overview>();
  for (const [directory, overview] of endpoints.flatMap(({ elsewhere }) => [...(elsewhere ?? [])]))
    if (overview.askedAtMs > (found.get(directory)?.askedAtMs ?? 0)) found.set(directory, overview);
  return found;
}

function shown(
  { server, directory, overview }: Work,
  key: string,
  { name, aliases }: Named,
  running: ReadonlySet<string>,
): Instance {
  const { endpoints } = server;
  const { state, reason } = stateOf(endpoints, overview, running);
  const seen = endpoints.map(({ lastSeenMs }) => lastSeenMs).filter((time) => time !== undefined);
  return {
    server,
    key,
    name,
    host: hostOf(server),
    state,
    ...(aliases.length === 0 ? {} : { aliases }),
    ...(reason === undefined ? {} : { reason }),
    ...(overview === undefined ? {} : { overview }),
    ...(directory === undefined ? {} : { directory }),
    ...(seen.length === 0 ? {} : { lastSeenMs: Math.max(...seen) }),
  };
}

/** Endpoints come best first; any of them may have the overview. */
function stateOf(
  [best]: Server['endpoints'],
  overview: Overview | undefined,
  running: ReadonlySet<string>,
): { readonly state: InstanceState; readonly reason?: string } {
  const { result } = best;
  if (result.status === 'healthy') return overview === undefined ? { state: 'unknown' } : doing(overview, running);
  if (result.status === 'unknown') return { state: 'unknown' };
  return { state: result.status === 'unhealthy' ? 'offline' : result.status, reason: result.reason };
}

/** The state of a server that answers: what needs a person comes first. `running`: sessions that run in any instance. */
export function doing(
  { activity, waiting, session, sessions }: Overview,
  running: ReadonlySet<string>,
): { readonly state: InstanceState; readonly reason?: string } {
  const [first] = waiting;
  if (first !== undefined) {
    const more = waiting.length > 1 ? ` (and ${waiting.length - 1} more)` : '';
    return { state: 'waiting', reason: `for ${WAITS_FOR[first.kind]}: ${inMarks(first.text)}${more}` };
  }
  if (activity.kind === 'retrying') return { state: 'retrying', reason: retryingLine(activity) };
  // OpenCode 2 lists a retrying session as running; its watcher learns of the retry from events.
  const retrying = activity.kind === 'busy' ? sessions?.find(({ state }) => state === 'retrying') : undefined;
  if (retrying?.reason !== undefined) return { state: 'retrying', reason: retrying.reason };
  // A session that runs in one process looks interrupted to another process of the same home.
  if (activity.kind === 'idle' && session?.rest !== undefined && !running.has(session.id)) return session.rest;
  return { state: activity.kind };
}

/** The sessions that run in a server. None if it does not answer: they may have been interrupted when it ended. */
function runningIn({ server, overview }: Work): readonly string[] {
  return server.endpoints[0].result.status === 'healthy' ? (overview?.running ?? []) : [];
}

const WAITS_FOR = { permission: 'permission', question: 'an answer' } as const;

function latestAsked(endpoints: readonly ProbedEndpoint[]): ProbedEndpoint | undefined {
  let latest: ProbedEndpoint | undefined;
  for (const endpoint of endpoints)
    if ((endpoint.overview?.askedAtMs ?? -1) > (latest?.overview?.askedAtMs ?? -1)) latest = endpoint;
  return latest;
}

function from(source: string): (note: Note) => Snapshot['notes'][number] {
  return ({ subject, reason }) => ({ subject, reason, source });
}

function sourceState({ name, status, reason, candidates, dropped, scannedAtMs }: SourceView): SourceState {
  return {
    name,
    status,
    candidates: candidates.length,
    dropped,
    ...(reason === undefined ? {} : { reason }),
    ...(scannedAtMs === undefined ? {} : { scannedAtMs }),
  };
}
