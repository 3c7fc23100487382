import type { SourceView } from '../discovery/chain.ts';
import type { Note } from '../model/candidate.ts';
import { inMarks, retryingLine } from '../opencode/waiting.ts';
import { MAX_MISSED_ROUNDS, type EndpointRecord } from './endpoint-table.ts';
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
import { hostKey } from '../identity/default-name.ts';
import { merge, type ProofSet } from '../identity/merge.ts';
import {
  assignNames,
  type Nameable,
  type Named,
  type NameRecord,
  isSame,
  type NameState,
  NO_NAMES,
} from '../identity/names.ts';
import { endingsOf, hostOf, nameable, nameableIn, placeOf } from '../identity/naming.ts';
import { compare } from '../model/non-empty.ts';
import { quoteName } from '../base/plain-text.ts';

/** What is shown, and what the next view needs to keep names where they are. */
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
  /** The record of an endpoint that is registered, or was at the last view. */
  readonly recordOf: (id: string) => { readonly record: EndpointRecord; readonly registered: boolean } | undefined;
  readonly proofs: ProofSet;
  /** Addresses that are not shown until it is known whether they still lead to the instance that they led to. */
  readonly returning: ReadonlySet<string>;
  readonly sources: readonly SourceView[];
}

/** Names in one note. */
const MAX_IN_NOTE = 10;

const MAX_MERGE_NOTES = 50;

/** The fleet as it is now. Pure but for reading `records`. */
export function buildView(previous: View, input: ViewInput): View {
  const listed: ProbedEndpoint[] = [];
  const unlisted: EndpointRecord[] = [];
  const crowded = new Map<string, EndpointRecord>();
  let waiting = 0;
  for (const record of input.records) {
    if (record.healthy && input.returning.has(record.key)) continue;
    if (record.listed) {
      listed.push(record.copy());
      if (record.unaskedDirectories > 0) crowded.set(record.candidate.claims.name ?? record.id, record);
    } else if (record.unlisted) unlisted.push(record);
    else waiting += 1;
  }
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
  const instances = all.filter((one) => !isOld(one));
  const before = gone.length > 0 ? shownBefore(previous) : new Map<string, Instance>();
  const serverOf = serversByMember(gone.length > 0 ? merged.servers : []);
  const resting = [
    ...all.filter(isOld),
    ...gone.flatMap((record) => {
      const last = before.get(record.name) ?? previous.gone.get(record.name);
      return restingAs(record, last?.overview, serverOf);
    }),
  ];
  const rests = new Set(resting.map(({ name }) => name));
  const obituaries = buryAll(
    gone.filter(({ name }) => !rests.has(name)),
    before,
    previous.gone,
    input.recordOf,
  );
  return {
    names: state,
    gone: obituaries,
    snapshot: {
      instances: instances.toSorted((one, other) => compare(one.name, other.name)),
      resting,
      gone: [...obituaries.values()],
      sources: input.sources.map(sourceState),
      notes: [
        ...input.sources.flatMap(({ name, notes }) => notes.map(from(name))),
        ...[...boundedNotes(merged.notes), ...countNotes(unlisted, waiting), ...crowdedNotes(crowded)].map(
          from('directory'),
        ),
      ],
    },
  };
}

/** What a server does in one directory, and what that may be called. */
interface Work {
  readonly server: Server;
  readonly directory: string | undefined;
  readonly overview: Overview | undefined;
  readonly names: Nameable;
}

/** Each server in its own directory, and in the others that it works in. */
function worksOf(servers: readonly Server[]): readonly Work[] {
  const placeIn = (server: Server, directory: string | undefined): string => `${hostKey(hostOf(server))}\0${directory}`;
  const own = new Set(servers.map((server) => placeIn(server, server.directory)));
  return servers.flatMap((server): Work[] => {
    const latest = latestAsked(server.endpoints);
    const { directory = '' } = server;
    // Another server's own directory is listed under this one only while this one works there.
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

/** From the endpoint that was asked last. */
function elsewhereOf({ endpoints }: Server): ReadonlyMap<string, Overview> {
  const found = new Map<string, Overview>();
  for (const [directory, overview] of endpoints.flatMap(({ elsewhere }) => [...(elsewhere ?? [])]))
    if (overview.askedAtMs > (found.get(directory)?.askedAtMs ?? 0)) found.set(directory, overview);
  return found;
}

/** By endpoint, and by lineage where only one server is of it: started again, it is registered as another one. */
function serversByMember(servers: readonly Server[]): ReadonlyMap<string, Server | 'several'> {
  const found = new Map<string, Server | 'several'>();
  for (const server of servers) {
    for (const { id, lineage } of nameable(server).members) {
      found.set(id, server);
      found.set(lineage, (found.get(lineage) ?? server) === server ? server : 'several');
    }
  }
  return found;
}

/** A directory that its server no longer works in keeps its name, by which it can be called. */
function restingAs(
  { name, anchor, members }: NameRecord,
  overview: Overview | undefined,
  serverOf: ReturnType<typeof serversByMember>,
): readonly Instance[] {
  const { directory } = placeOf(anchor);
  if (directory === undefined) return [];
  const lineage = anchor.lineage.slice(0, -directory.length - 1);
  for (const place of [...[anchor, ...members].map((known) => placeOf(known).endpointId), lineage]) {
    const server = serverOf.get(place);
    if (server === undefined || server === 'several') continue;
    const { key, members: now } = nameableIn(server, directory, endingsOf([]));
    if (now.some((member) => [anchor, ...members].some((known) => isSame(member, known))))
      return [{ server, key, name, host: hostOf(server), directory, state: 'unknown', ...(overview && { overview }) }];
  }
  return [];
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

/** What a person should look at first of a server that answers. `running`: sessions that any instance works on. */
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
  // What runs in one process looks interrupted to another of the same home.
  if (activity.kind === 'idle' && session?.rest !== undefined && !running.has(session.id)) return session.rest;
  return { state: activity.kind };
}

/** What was running in one that does not answer any more may be just what its end has interrupted. */
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

/** What to say of each name that stands for nothing now. What was said when it went is kept. */
function buryAll(
  gone: readonly NameRecord[],
  before: ReadonlyMap<string, Instance>,
  buried: View['gone'],
  recordOf: ViewInput['recordOf'],
): Map<string, GoneInstance> {
  return new Map(
    gone.map((record) => [record.name, buried.get(record.name) ?? bury(record, before.get(record.name), recordOf)]),
  );
}

/** By every name that leads to it. */
function shownBefore({ snapshot: { instances, resting } }: View): ReadonlyMap<string, Instance> {
  return new Map(
    [...instances, ...resting].flatMap((one) => [one.name, ...(one.aliases ?? [])].map((name) => [name, one])),
  );
}

function bury({ name, anchor }: NameRecord, last: Instance | undefined, recordOf: ViewInput['recordOf']): GoneInstance {
  const found = recordOf(placeOf(anchor).endpointId);
  const directory = last?.directory ?? last?.server.claims.directory;
  const lastSeenMs = Math.max(last?.lastSeenMs ?? 0, found?.record.lastSeenMs ?? 0);
  return {
    name,
    host: last?.host ?? 'unknown',
    reason: reasonOf(found),
    ...(directory === undefined ? {} : { directory }),
    ...(lastSeenMs === 0 ? {} : { lastSeenMs }),
    ...(last?.overview === undefined ? {} : { overview: last.overview }),
  };
}

function reasonOf(found: ReturnType<ViewInput['recordOf']>): string {
  if (found === undefined || !found.registered) return 'it is no longer registered';
  const { result, unlisted } = found.record;
  if (unlisted && result.status === 'unhealthy')
    return `it did not answer for ${MAX_MISSED_ROUNDS} rounds (${result.reason})`;
  return 'another registration has taken its place';
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

function boundedNotes(notes: readonly Note[]): readonly Note[] {
  if (notes.length <= MAX_MERGE_NOTES) return notes;
  return [
    ...notes.slice(0, MAX_MERGE_NOTES),
    {
      subject: 'registrations',
      reason: `${notes.length - MAX_MERGE_NOTES} more contradict another one and are left out`,
    },
  ];
}

function crowdedNotes(crowded: ReadonlyMap<string, EndpointRecord>): readonly Note[] {
  return [...crowded].map(([name, { unaskedDirectories: count, lastHealthy }]) => ({
    subject: quoteName(name),
    reason:
      lastHealthy?.dialect === 'opencode-1'
        ? `${count} more directories were used in the last minutes; what runs there is not asked. The list of its sessions has the latest`
        : `${count} more directories were not used today, or are too many to list; the list of its sessions has theirs`,
  }));
}

function countNotes(unlisted: readonly EndpointRecord[], waiting: number): Note[] {
  const notes: Note[] = [];
  if (unlisted.length > 0) {
    const names = unlisted.slice(0, MAX_IN_NOTE).map(({ candidate, id }) => quoteName(candidate.claims.name ?? id));
    const more = unlisted.length > MAX_IN_NOTE ? ` and ${unlisted.length - MAX_IN_NOTE} more` : '';
    notes.push({
      subject: `${unlisted.length} ${unlisted.length === 1 ? 'registration' : 'registrations'}`,
      reason: `not listed after ${MAX_MISSED_ROUNDS} rounds without an answer; a refresh asks all again: ${names.join(', ')}${more}`,
    });
  }
  if (waiting > 0)
    notes.push({
      subject: `${waiting} new ${waiting === 1 ? 'registration' : 'registrations'}`,
      reason: 'not listed yet: being asked for the first time',
    });
  return notes;
}
