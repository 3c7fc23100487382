import { quoteName, sentence } from '../plain-text.ts';
import type { Instance, ProbedEndpoint, Snapshot } from './instance.ts';

/**
 * - `seen`: listed for the first time, or answering again
 * - `lost`: none of its ways answers any more
 * - `gone`: no longer listed
 * - `moved`: reached by another way than before
 * - `joined`: one more way leads there
 * - `parted`: a way leads there no longer
 */
export type ChangeKind = 'seen' | 'lost' | 'gone' | 'moved' | 'joined' | 'parted';

/** Something that became of an instance. */
export interface Change {
  /** As it was shown then. */
  readonly name: string;
  readonly kind: ChangeKind;
  /** What, and why; one bounded line without control characters. */
  readonly what: string;
  /** When it last happened, ms since the epoch. */
  readonly atMs: number;
  /** When it first happened of `times`. */
  readonly sinceMs: number;
  /** How often it was seen to happen lately; more than once where something comes and goes. */
  readonly times: number;
}

type Event = Pick<Change, 'name' | 'kind' | 'what'>;

/** Some days of ordinary life, and few enough to read. */
const MAX_CHANGES = 200;

/** A change that is among so many last ones of its instance happened again: what comes and goes takes no more room than that. */
const REPEATED_WITHIN = 6;

const MAX_WHAT_CHARS = 300;

/** The newest changes of all instances, for who wants to know why the list is as it is. */
export class History {
  #changes: readonly Change[] = [];

  observe(before: Snapshot, after: Snapshot, nowMs: number): void {
    const events = changesBetween(before, after);
    // At the start of a big fleet only the last ones are kept anyway.
    for (const event of events.slice(-MAX_CHANGES)) this.#add(event, nowMs);
  }

  /** Oldest first. */
  changes(): readonly Change[] {
    return this.#changes;
  }

  #add(event: Event, nowMs: number): void {
    const lately = this.#changes.filter(({ name }) => name === event.name).slice(-REPEATED_WITHIN);
    const known = lately.find(({ kind, what }) => kind === event.kind && what === event.what);
    const change = { ...event, atMs: nowMs, sinceMs: known?.sinceMs ?? nowMs, times: (known?.times ?? 0) + 1 };
    this.#changes = [...this.#changes.filter((one) => one !== known), change].slice(-MAX_CHANGES);
  }
}

/** What became of the instances from one snapshot to the next. Pure. */
export function changesBetween(before: Snapshot, after: Snapshot): readonly Event[] {
  const was = byName(before.instances);
  const is = byName(after.instances);
  const past = byEndpoint(before.instances);
  const present = byEndpoint(after.instances);
  const events: Event[] = [];
  const tell = (name: string, kind: ChangeKind, what: string): void =>
    void events.push({ name, kind, what: sentence(what, MAX_WHAT_CHARS) });
  for (const { name } of before.instances) {
    if (!is.has(name)) tell(name, 'gone', after.gone.find((one) => one.name === name)?.reason ?? 'no longer listed');
  }
  for (const now of after.instances) {
    const then = was.get(now.name);
    if (then === undefined) {
      tell(now.name, 'seen', firstSight(now));
      continue;
    }
    const turn = turnOf(then, now);
    if (turn !== undefined) tell(now.name, ...turn);
    for (const endpoint of now.endpoints) {
      if (then.endpoints.some(({ id }) => id === endpoint.id)) continue;
      tell(now.name, 'joined', `${wayOf(endpoint)} leads here too${formerly(past.get(endpoint.id), now)}`);
    }
    for (const endpoint of then.name === now.name ? then.endpoints : []) {
      if (!now.endpoints.some(({ id }) => id === endpoint.id))
        tell(now.name, 'parted', `${wayOf(endpoint)}${partedTo(present.get(endpoint.id))}`);
    }
  }
  return events;
}

/** What became of the way to it. */
function turnOf(then: Instance, now: Instance): [ChangeKind, string] | undefined {
  const [old] = then.endpoints;
  const [best] = now.endpoints;
  if (!answers(now)) return answers(then) ? ['lost', now.reason ?? now.state] : undefined;
  if (!answers(then)) return ['seen', `answers again by ${wayOf(best)}`];
  if (wayOf(old) === wayOf(best)) return undefined;
  return ['moved', `from ${wayOf(old)} to ${wayOf(best)}: ${whyNot(now.endpoints.find(({ id }) => id === old.id))}`];
}

/** Why a way is no longer the best one. */
function whyNot(old: ProbedEndpoint | undefined): string {
  if (old === undefined) return 'the old one is not known to lead there any more';
  if (old.result.status === 'unhealthy') return old.result.reason;
  if (old.result.status !== 'healthy') return `the old one is ${old.result.status}`;
  return old.unsteady ? 'the old one comes and goes' : 'it is the better one';
}

function firstSight(instance: Instance): string {
  const [best] = instance.endpoints;
  const sources = [...new Set(instance.endpoints.map(({ candidate }) => candidate.source))].join(', ');
  const state = answers(instance)
    ? ''
    : `, ${instance.state}${instance.reason === undefined ? '' : `: ${instance.reason}`}`;
  return `by ${wayOf(best)} (${sources})${state}`;
}

function formerly(instance: Instance | undefined, now: Instance): string {
  return instance === undefined || instance.name === now.name ? '' : `; it was shown as ${quoteName(instance.name)}`;
}

function partedTo(instance: Instance | undefined): string {
  return instance === undefined
    ? ' is not registered any more, or is to be proven again'
    : ` is shown as ${quoteName(instance.name)}: nothing proves now that they are one`;
}

function answers({ endpoints: [best] }: Instance): boolean {
  const { status } = best.result;
  return status === 'healthy' || status === 'locked' || status === 'unsupported';
}

function wayOf({ candidate: { endpoint } }: ProbedEndpoint): string {
  return `${endpoint.route} ${endpoint.url}`;
}

function byName(instances: readonly Instance[]): ReadonlyMap<string, Instance> {
  const found = new Map<string, Instance>();
  for (const instance of instances)
    for (const name of [instance.name, ...(instance.aliases ?? [])]) found.set(name, instance);
  return found;
}

function byEndpoint(instances: readonly Instance[]): ReadonlyMap<string, Instance> {
  const found = new Map<string, Instance>();
  for (const instance of instances) for (const { id } of instance.endpoints) found.set(id, instance);
  return found;
}
