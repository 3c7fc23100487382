import type { SourceView } from '../discovery/chain.ts';
import type { Note } from '../model/candidate.ts';
import { inMarks, retryingLine } from '../opencode/waiting.ts';
import { MAX_MISSED_ROUNDS, type EndpointRecord } from './endpoint-table.ts';
import type {
  GoneInstance,
  Instance,
  InstanceState,
  MergedInstance,
  Overview,
  ProbedEndpoint,
  Snapshot,
  SourceState,
} from '../model/instance.ts';
import { merge, type ProofSet } from '../identity/merge.ts';
import { assignNames, type Named, type NameRecord, type NameState, NO_NAMES } from '../identity/names.ts';
import { hostOf, nameable } from '../identity/naming.ts';
import { compare } from '../model/non-empty.ts';
import { quoteName } from '../base/plain-text.ts';

/** What is shown, and what the next view needs to keep names where they are. */
export interface View {
  readonly snapshot: Snapshot;
  readonly names: NameState;
  readonly gone: ReadonlyMap<string, GoneInstance>;
}

export const EMPTY_VIEW: View = {
  snapshot: { instances: [], gone: [], sources: [], notes: [] },
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

/** The directory as it is now. Pure but for reading `records`. */
export function buildView(previous: View, input: ViewInput): View {
  const listed: ProbedEndpoint[] = [];
  const unlisted: EndpointRecord[] = [];
  let waiting = 0;
  for (const record of input.records) {
    if (record.healthy && input.returning.has(record.key)) continue;
    if (record.listed) listed.push(record.copy());
    else if (record.unlisted) unlisted.push(record);
    else waiting += 1;
  }
  const merged = merge(listed, input.proofs);
  const { state, named, gone } = assignNames(previous.names, merged.instances.map(nameable));
  const running = new Set(merged.instances.flatMap(({ endpoints }) => runningIn(endpoints)));
  const instances = merged.instances.map((instance) =>
    shown(instance, named.get(instance.key) ?? { name: instance.key, aliases: [] }, running),
  );
  const obituaries = buryAll(gone, previous, input.recordOf);
  return {
    names: state,
    gone: obituaries,
    snapshot: {
      instances: instances.toSorted((one, other) => compare(one.name, other.name)),
      gone: [...obituaries.values()],
      sources: input.sources.map(sourceState),
      notes: [
        ...input.sources.flatMap(({ name, notes }) => notes.map(from(name))),
        ...[...boundedNotes(merged.notes), ...countNotes(unlisted, waiting)].map(from('directory')),
      ],
    },
  };
}

function shown(instance: MergedInstance, { name, aliases }: Named, running: ReadonlySet<string>): Instance {
  const { endpoints } = instance;
  const overview = newestOverview(endpoints);
  const { state, reason } = stateOf(endpoints, overview, running);
  const directory = endpoints.find(({ lastHealthy }) => lastHealthy !== undefined)?.lastHealthy?.directory;
  const seen = endpoints.map(({ lastSeenMs }) => lastSeenMs).filter((time) => time !== undefined);
  return {
    ...instance,
    name,
    host: hostOf(instance),
    state,
    ...(aliases.length === 0 ? {} : { aliases }),
    ...(reason === undefined ? {} : { reason }),
    ...(overview === undefined ? {} : { overview }),
    ...(directory === undefined ? {} : { directory }),
    ...(seen.length === 0 ? {} : { lastSeenMs: Math.max(...seen) }),
  };
}

/** Endpoints come best first; any of them may have told what it is doing. */
function stateOf(
  [best]: MergedInstance['endpoints'],
  overview: Overview | undefined,
  running: ReadonlySet<string>,
): { readonly state: InstanceState; readonly reason?: string } {
  const { result } = best;
  if (result.status === 'healthy') return overview === undefined ? { state: 'unknown' } : doing(overview, running);
  if (result.status === 'unknown') return { state: 'unknown' };
  return { state: result.status === 'unhealthy' ? 'offline' : result.status, reason: result.reason };
}

/** What a person should look at first. `running`: sessions that any instance works on. */
function doing(
  { activity, waiting, session, latest = session }: Overview,
  running: ReadonlySet<string>,
): { readonly state: InstanceState; readonly reason?: string } {
  const [first] = waiting;
  if (first !== undefined) {
    const more = waiting.length > 1 ? ` (and ${waiting.length - 1} more)` : '';
    return { state: 'waiting', reason: `for ${WAITS_FOR[first.kind]}: ${inMarks(first.text)}${more}` };
  }
  if (activity.kind === 'retrying') return { state: 'retrying', reason: retryingLine(activity) };
  // What runs in one process looks interrupted to another of the same home.
  if (activity.kind === 'idle' && latest?.rest !== undefined && !running.has(latest.id)) return latest.rest;
  return { state: activity.kind };
}

/** What was running in one that does not answer any more may be just what its end has interrupted. */
function runningIn(endpoints: MergedInstance['endpoints']): readonly string[] {
  return endpoints[0].result.status === 'healthy' ? (newestOverview(endpoints)?.running ?? []) : [];
}

const WAITS_FOR = { permission: 'permission', question: 'an answer' } as const;

function newestOverview(endpoints: readonly ProbedEndpoint[]): Overview | undefined {
  let newest: Overview | undefined;
  for (const { overview } of endpoints) if ((overview?.askedAtMs ?? -1) > (newest?.askedAtMs ?? -1)) newest = overview;
  return newest;
}

/** What to say of each name that stands for nothing now. What was said when it went is kept. */
function buryAll(
  gone: readonly NameRecord[],
  previous: View,
  recordOf: ViewInput['recordOf'],
): Map<string, GoneInstance> {
  const lost = gone.filter(({ name }) => !previous.gone.has(name));
  const before = new Map<string, Instance>();
  if (lost.length > 0) {
    for (const instance of previous.snapshot.instances)
      for (const name of [instance.name, ...(instance.aliases ?? [])]) before.set(name, instance);
  }
  return new Map(
    gone.map((record) => [
      record.name,
      previous.gone.get(record.name) ?? bury(record, before.get(record.name), recordOf),
    ]),
  );
}

function bury({ name, anchor }: NameRecord, last: Instance | undefined, recordOf: ViewInput['recordOf']): GoneInstance {
  const found = recordOf(anchor.id);
  const directory = last?.directory ?? last?.claims.directory;
  const lastSeenMs = Math.max(last?.lastSeenMs ?? 0, found?.record.lastSeenMs ?? 0);
  return {
    name,
    host: last?.host ?? 'unknown',
    reason: reasonOf(found),
    ...(directory === undefined ? {} : { directory }),
    ...(lastSeenMs === 0 ? {} : { lastSeenMs }),
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

function sourceState({ name, status, reason, candidates }: SourceView): SourceState {
  return { name, status, candidates: candidates.length, ...(reason === undefined ? {} : { reason }) };
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

function countNotes(unlisted: readonly EndpointRecord[], waiting: number): Note[] {
  const notes: Note[] = [];
  if (unlisted.length > 0) {
    const names = unlisted.slice(0, MAX_IN_NOTE).map(({ candidate, id }) => quoteName(candidate.claims.name ?? id));
    const more = unlisted.length > MAX_IN_NOTE ? ` and ${unlisted.length - MAX_IN_NOTE} more` : '';
    notes.push({
      subject: `${unlisted.length} ${unlisted.length === 1 ? 'registration' : 'registrations'}`,
      reason: `not listed after ${MAX_MISSED_ROUNDS} rounds without an answer; refresh_instances asks all again: ${names.join(', ')}${more}`,
    });
  }
  if (waiting > 0)
    notes.push({
      subject: `${waiting} new ${waiting === 1 ? 'registration' : 'registrations'}`,
      reason: 'not listed yet: being asked for the first time',
    });
  return notes;
}
