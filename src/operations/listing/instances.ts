import type { Snapshot } from '../../model/instance.ts';
import { isReported } from '../../model/report.ts';
import type { ReaderWords } from '../../model/advice.ts';
import { sentence, singleLine } from '../../base/plain-text.ts';
import { type Answer, formatAge, quoteName } from '../answer.ts';
import { renderEndpoints, endpointsShown, versionShown } from './endpoints-shown.ts';
import type { Call, Runtime } from '../runtime.ts';
import type { InstanceList, InstanceRow } from '../shapes.ts';
import { type Listed, withStalls } from '../send/stalls.ts';
import { waitingLine } from '../respond/waiting.ts';

export interface ListInput {
  readonly match?: string | undefined;
  readonly offset: number;
  /** Default: as many as fit in `PAGE_BYTES`. */
  readonly limit?: number | undefined;
}

/** Limit for the rows, as text and structure together: with its notes, a result stays below 8 KB. */
const PAGE_BYTES = 6_000;

/** States listed first: what needs a person, then what works. The others follow by name. */
const FIRST: readonly Listed['state'][] = ['waiting', 'retrying', 'stalled', 'interrupted', 'busy', 'starting'];

/** Notes in one result; the doctor shows all. */
const MAX_NOTES = 8;
const MAX_NOTE_CHARS = 300;
/** The limit of a probe's reason, so that a command at its end is whole. */
const MAX_REASON_CHARS = 400;
/** get_status shows more. */
const MAX_WAITING = 3;
/** Older data was not fetched by this call. */
const FRESH_MS = 1_000;

/** Asks every instance what it does, then lists them. */
export async function instances(runtime: Runtime, input: ListInput, call: Call): Promise<Answer<InstanceList>> {
  const askedAtMs = runtime.clock.now();
  return answer(runtime, await runtime.fleet.survey(call.signal), input, askedAtMs, call);
}

/** Lists what is known; asks only instances with a stalled turn. */
export async function listInstances(runtime: Runtime, input: ListInput, call: Call): Promise<Answer<InstanceList>> {
  await runtime.fleet.ready();
  return answer(runtime, runtime.fleet.snapshot(), input, runtime.clock.now(), call);
}

/** Scans every source and probes every endpoint, then lists. */
export async function refreshInstances(runtime: Runtime, input: ListInput, call: Call): Promise<Answer<InstanceList>> {
  const askedAtMs = runtime.clock.now();
  return answer(runtime, await runtime.fleet.refresh(call.signal), input, askedAtMs, call);
}

async function answer(
  runtime: Runtime,
  snapshot: Snapshot,
  input: ListInput,
  askedAtMs: number,
  call: Call,
): Promise<Answer<InstanceList>> {
  const match = input.match?.toLowerCase();
  const named = snapshot.instances.filter(({ name }) => match === undefined || name.toLowerCase().includes(match));
  const fitting = await withStalls(runtime, named, call);
  const now = runtime.clock.now();
  const ordered = fitting.toSorted((one, other) => urgency(one) - urgency(other));
  const rows = page(ordered.slice(input.offset), input.limit, (instance) => instanceRow(instance, askedAtMs, now), now);
  const next = input.offset + rows.length;
  const data: InstanceList = {
    instances: rows,
    total: fitting.length,
    states: counts(fitting),
    ...(next < fitting.length && { next_offset: next }),
    notes: shownNotes(snapshot),
  };
  return { data, text: render(data, now, match === undefined ? noInstances(snapshot, runtime.words) : NO_SUCH_NAME) };
}

function urgency({ state }: Listed): number {
  const rank = FIRST.indexOf(state);
  return rank === -1 ? FIRST.length : rank;
}

function page(
  instances: readonly Listed[],
  limit: number | undefined,
  rowOf: (instance: Listed) => InstanceRow,
  nowMs: number,
): InstanceRow[] {
  if (limit !== undefined) return instances.slice(0, limit).map(rowOf);
  const rows: InstanceRow[] = [];
  let bytes = 0;
  for (const instance of instances) {
    const row = rowOf(instance);
    bytes += Buffer.byteLength(JSON.stringify(row)) + Buffer.byteLength(renderInstance(row, nowMs));
    if (bytes > PAGE_BYTES && rows.length > 0) break;
    rows.push(row);
  }
  return rows;
}

/** `3 waiting, 20 busy, 27 idle`. */
function counts(instances: readonly Listed[]): string {
  const states = new Map<string, number>();
  for (const { state } of instances.toSorted((one, other) => urgency(one) - urgency(other)))
    states.set(state, (states.get(state) ?? 0) + 1);
  return [...states].map(([state, count]) => `${count} ${state}`).join(', ');
}

function instanceRow(instance: Listed, askedAtMs: number, nowMs: number): InstanceRow {
  const { server, overview } = instance;
  const [best] = server.endpoints;
  const healthy = best.result.status === 'healthy';
  const isOwn = instance.key === server.key;
  const directory = healthy || !isOwn ? instance.directory : (server.claims.directory ?? instance.directory);
  const version =
    best.result.status === 'healthy' || best.result.status === 'unsupported' ? versionShown(best.result) : undefined;
  // A watcher's report holds until the next one.
  const stale = overview !== undefined && overview.askedAtMs < askedAtMs - FRESH_MS && !isReported(server);
  return {
    name: instance.name,
    host: instance.host,
    ...(directory !== undefined && { directory: singleLine(directory, 200) }),
    state: instance.state,
    ...(instance.state !== 'waiting' &&
      instance.reason !== undefined && { reason: sentence(instance.reason, MAX_REASON_CHARS) }),
    ...(overview?.session !== undefined && {
      session: {
        id: overview.session.id,
        title: singleLine(overview.session.title, 60),
        updated: new Date(overview.session.updatedMs).toISOString(),
      },
    }),
    ...(version !== undefined && { version }),
    ...endpointsShown(server, best.candidate.endpoint),
    sources: [...new Set(server.endpoints.map(({ candidate }) => candidate.source))],
    ...(instance.state === 'waiting' &&
      overview !== undefined && { waiting: overview.waiting.slice(0, MAX_WAITING).map((one) => waitingLine(one)) }),
    ...(instance.state === 'offline' &&
      best.lastSeenMs !== undefined && { last_seen: new Date(best.lastSeenMs).toISOString() }),
    ...(stale && { stale_seconds: Math.round((nowMs - overview.askedAtMs) / 1000) }),
  };
}

/** Notes on failing sources and on what sources left out; bounded. */
export function shownNotes(snapshot: Snapshot): string[] {
  // A machine without tailscaled or a registry is no fault.
  const failing = snapshot.sources
    .filter(({ status }) => status !== 'ok' && status !== 'unavailable')
    .map(({ name, status, reason }) => `source ${name} is ${status}${reason === undefined ? '' : `: ${reason}`}`);
  const all = [...failing, ...snapshot.notes.map(({ source, subject, reason }) => `${source}: ${subject}: ${reason}`)];
  const shown = all.slice(0, MAX_NOTES).map((note) => sentence(note, MAX_NOTE_CHARS));
  const left = all.length - MAX_NOTES;
  return left > 0 ? [...shown, `and ${left} more notes`] : shown;
}

const NO_SUCH_NAME = 'No instance has such a name.';

function render(data: InstanceList, nowMs: number, none: string): string {
  const lines = data.instances.map((row) => renderInstance(row, nowMs));
  if (data.total > 1) lines.unshift(`${data.total} instances: ${data.states}`);
  if (data.total === 0) lines.push(none);
  if (data.next_offset !== undefined) {
    lines.push(`(${data.total} in all; the next ones: call again with offset ${data.next_offset})`);
  }
  lines.push(...data.notes.map((note) => `note: ${note}`));
  return lines.join('\n');
}

function noInstances(snapshot: Snapshot, { look }: ReaderWords): string {
  const named = (status: (one: string) => boolean): string =>
    snapshot.sources.flatMap((source) => (status(source.status) ? [source.name] : [])).join(', ');
  const absent = named((status) => status === 'unavailable');
  const present = named((status) => status !== 'unavailable') || 'no source';
  const looked =
    snapshot.sources.length === 0
      ? 'no source: none is configured'
      : `${present}${absent === '' ? '' : `; not in use here: ${absent}`}`;
  const pending = snapshot.sources.filter(({ status }) => status === 'pending').map(({ name }) => name);
  if (pending.length > 0)
    return `No OpenCode instance is known yet: the first scan of ${pending.join(', ')} has not ended; ${look} again.`;
  return `No OpenCode instance was found (searched: ${looked}). Start opencode-connected in a project of yours, here or with this machine as its relay, then ${look} again; if it is still missing, opencode-mcp doctor says why.`;
}

function renderInstance(row: InstanceRow, nowMs: number): string {
  const waiting = row.waiting === undefined ? '' : ` for ${row.waiting.join('; ')}`;
  const parts = [`${quoteName(row.name)}: ${row.state}${waiting}`];
  if (row.reason !== undefined) parts.push(`(${row.reason})`);
  if (row.last_seen !== undefined) parts.push(`last seen ${formatAge(nowMs - Date.parse(row.last_seen))} ago`);
  if (row.stale_seconds !== undefined) parts.push(`[did not answer now; as of ${row.stale_seconds} s ago]`);
  parts.push(`host ${quoteName(row.host)}`);
  if (row.directory !== undefined) parts.push(quoteName(row.directory));
  if (row.session !== undefined) {
    const { id, title, updated } = row.session;
    parts.push(`session ${id} ${JSON.stringify(title)} ${formatAge(nowMs - Date.parse(updated))} ago`);
  }
  if (row.version !== undefined) parts.push(`opencode ${quoteName(row.version)}`);
  parts.push(`${renderEndpoints(row)} [${row.sources.join(', ')}]`);
  return parts.join(' · ').replace(' · (', ' (');
}
