import { singleLine } from '../base/plain-text.ts';
import { compare, groupBy, type NonEmpty, sortNonEmpty } from '../model/non-empty.ts';

/** One instance as naming sees it. */
export interface Nameable {
  readonly key: string;
  /** Its endpoints, the most authoritative first. */
  readonly members: NonEmpty<Member>;
  /** Its name if it were the only instance. */
  readonly base: string;
  readonly host: string;
  readonly port: number;
  /** Named in the configuration. Has precedence over all others for a name. */
  readonly pinned: boolean;
  /** It answers. Has precedence over those that do not. */
  readonly alive: boolean;
  /** May have its bare name. False for LAN advertisements and untrusted registrations, which may not take another's name. */
  readonly plain: boolean;
  /** From `opencode-connected`. */
  readonly processId?: string;
}

export interface Member {
  readonly id: string;
  /** Stays the same when an endpoint comes back with another id; see `lineageOf`. */
  readonly lineage: string;
  /** As `Nameable.processId`, if the endpoint is trusted. */
  readonly processId?: string;
}

/** A name that was shown, and the instance it is bound to. */
export interface NameRecord {
  readonly name: string;
  /** Counts names in the order in which they were given. */
  readonly sequence: number;
  /** The endpoint that carries the name. */
  readonly anchor: Member;
  /** All endpoints of the instance when it was last shown. */
  readonly members: readonly Member[];
}

export interface NameState {
  readonly records: ReadonlyMap<string, NameRecord>;
  readonly nextSequence: number;
}

export interface Named {
  readonly name: string;
  /** Other names that it was shown under before two entries were proven to be one. */
  readonly aliases: readonly string[];
}

export interface Assignment {
  readonly state: NameState;
  /** By the key of the instance. */
  readonly named: ReadonlyMap<string, Named>;
  /** Names of instances that are gone. */
  readonly gone: readonly NameRecord[];
}

export const NO_NAMES: NameState = { records: new Map(), nextSequence: 1 };

export const MAX_NAME_CHARS = 64;
const MAX_HOST_CHARS = 30;

/** Names of gone instances are kept as long as this process runs, but a flood of advertisements must not fill its memory. */
const MAX_GONE_NAMES = 20_000;

/**
 * Gives every instance a unique name. A name stays with its endpoint. A new instance takes over the name of a gone one only if, in their
 * lineage, exactly one instance is gone and exactly one is new. Pure; the order of `instances` does not matter.
 */
export function assignNames(state: NameState, instances: readonly Nameable[]): Assignment {
  const ordered = instances.toSorted(byRank);
  const held: Held = new Map();
  const gone: NameRecord[] = [];
  const endpoints = new Map<string, { readonly instance: Nameable; readonly member: Member }>();
  for (const instance of ordered) for (const member of instance.members) endpoints.set(member.id, { instance, member });

  for (const record of state.records.values()) {
    const holder = holderOf(record, endpoints);
    if (holder === undefined) gone.push(record);
    else hold(held, holder.instance, { ...record, anchor: holder.member });
  }
  const left = returning(
    gone,
    ordered.filter(({ key }) => !held.has(key)),
    held,
  );
  const naming = new Naming(state, ordered, held);
  naming.nameNewcomers(ordered.filter(({ key }) => !held.has(key)));
  return naming.result(ordered, left);
}

/** The instance that a name is still bound to. */
function holderOf(
  record: NameRecord,
  endpoints: ReadonlyMap<string, { readonly instance: Nameable; readonly member: Member }>,
): { readonly instance: Nameable; readonly member: Member } | undefined {
  const anchored = endpoints.get(record.anchor.id);
  if (anchored !== undefined && isSame(anchored.member, record.anchor)) return anchored;
  // The named endpoint is gone: the others of its instance keep the name, if they are still one instance.
  const others = record.members
    .flatMap(({ id }) => endpoints.get(id) ?? [])
    .filter(({ member }) => record.members.some((known) => known.id === member.id && isSame(known, member)));
  return others.every(({ instance }) => instance === others[0]?.instance) ? others[0] : undefined;
}

/** Whether an endpoint is still the same. A renamed machine changes the lineage, but not the process. */
export function isSame(one: Omit<Member, 'id'>, other: Omit<Member, 'id'>): boolean {
  return one.lineage === other.lineage || (one.processId !== undefined && one.processId === other.processId);
}

/** Gives gone names to new processes of the same lineage; returns the names that stay gone. */
function returning(gone: readonly NameRecord[], newcomers: readonly Nameable[], held: Held): readonly NameRecord[] {
  if (gone.length === 0 || newcomers.length === 0) return gone;
  const goneOf = groupBy(gone, ({ anchor }) => anchor.lineage);
  const back = new Set<NameRecord>();
  for (const [lineage, comers] of groupBy(newcomers, ({ members }) => members[0].lineage)) {
    const fits = goneOf.get(lineage);
    // Several names of one instance, or registrations of one process, count once.
    if (fits === undefined || new Set(fits.map(identityOf)).size > 1 || processesOf(comers) > 1) continue;
    for (const record of fits) {
      back.add(record);
      hold(held, comers[0], { ...record, anchor: comers[0].members[0] });
    }
  }
  return gone.filter((record) => !back.has(record));
}

function identityOf({ members }: NameRecord): string {
  return members
    .map(({ id }) => id)
    .toSorted(compare)
    .join('\0');
}

class Naming {
  readonly #held: Held;
  /** Bases of the instances that have a name, except LAN advertisements and untrusted registrations. */
  readonly #bases = new Set<string>();
  readonly #taken: Set<string>;
  /** The next number for each name, so that 10,000 equal names are not counted 10,000 times. */
  readonly #numbers = new Map<string, number>();
  #next: number;

  constructor(state: NameState, instances: readonly Nameable[], held: Held) {
    this.#held = held;
    this.#taken = new Set(state.records.keys());
    this.#next = state.nextSequence;
    for (const { key, base, plain } of instances) if (plain && held.has(key)) this.#bases.add(baseOf(base));
  }

  /** Tries the bare name, then adds the host, then the port, until the name is unique. If none is, adds a number. */
  nameNewcomers(newcomers: readonly Nameable[]): void {
    const steps = [bareName, hostName, portName];
    let waiting = newcomers;
    for (const [index, nameOf] of steps.entries()) {
      const named = new Set<Nameable>();
      for (const [name, all] of groupBy(waiting, nameOf)) {
        const rivals = index === 0 ? all.filter(({ plain }) => plain) : all;
        if (this.#taken.has(name) || (index === 0 && this.#bases.has(name))) continue;
        const [first] = rivals;
        if (first === undefined) continue;
        const contenders = rivals.filter(({ pinned, alive }) => pinned === first.pinned && alive === first.alive);
        if (processesOf(contenders) > 1) continue;
        this.#give(first, name);
        named.add(first);
      }
      waiting = waiting.filter((instance) => !named.has(instance));
    }
    for (const instance of waiting) this.#give(instance, this.#numbered(instance));
  }

  result(instances: readonly Nameable[], gone: readonly NameRecord[]): Assignment {
    const records = new Map<string, NameRecord>();
    const named = new Map<string, Named>();
    const kept = gone.toSorted(bySequence).slice(-MAX_GONE_NAMES);
    for (const record of kept) records.set(record.name, record);
    for (const instance of instances) {
      const own = this.#held.get(instance.key);
      if (own === undefined) continue;
      const [first, ...rest] = sortNonEmpty(own, bySequence);
      named.set(instance.key, { name: first.name, aliases: rest.map(({ name }) => name) });
      for (const record of own) records.set(record.name, { ...record, members: instance.members });
    }
    return { state: { records, nextSequence: this.#next }, named, gone: kept };
  }

  #numbered(instance: Nameable): string {
    const { base, host, port } = instance;
    const equal = portName(instance);
    for (let number = this.#numbers.get(equal) ?? 2; ; number += 1) {
      const name = fit(base, `@${hostOf(host)}:${port}#${number}`);
      if (this.#taken.has(name)) continue;
      this.#numbers.set(equal, number + 1);
      return name;
    }
  }

  #give(instance: Nameable, name: string): void {
    this.#taken.add(name);
    hold(this.#held, instance, { name, sequence: this.#next, anchor: instance.members[0], members: instance.members });
    this.#next += 1;
  }
}

const bareName = ({ base }: Nameable): string => baseOf(base);
const hostName = ({ base, host }: Nameable): string => fit(base, `@${hostOf(host)}`);
const portName = ({ base, host, port }: Nameable): string => fit(base, `@${hostOf(host)}:${port}`);

/** All names that an instance may get, depending on the others. */
export function possibleNames(instance: Nameable): readonly string[] {
  return [instance.base, bareName(instance), hostName(instance), portName(instance)];
}

function baseOf(base: string): string {
  return fit(base, '');
}

function fit(base: string, suffix: string): string {
  const text = singleLine(base, MAX_NAME_CHARS).trim() || 'opencode';
  return `${singleLine(text, MAX_NAME_CHARS - suffix.length).trim()}${suffix}`;
}

function hostOf(host: string): string {
  return singleLine(host, MAX_HOST_CHARS).trim() || 'unknown';
}

/** The number of processes. Instances with the same process id count once. */
function processesOf(instances: readonly Nameable[]): number {
  return new Set(instances.map(({ processId, key }) => (processId === undefined ? `key\0${key}` : `id\0${processId}`)))
    .size;
}

/** The names of each instance, by its key. */
type Held = Map<string, [NameRecord, ...NameRecord[]]>;

function hold(held: Held, { key }: Nameable, record: NameRecord): void {
  const records = held.get(key);
  if (records === undefined) held.set(key, [record]);
  else records.push(record);
}

function byRank(one: Nameable, other: Nameable): number {
  return (
    Number(other.pinned) - Number(one.pinned) || Number(other.alive) - Number(one.alive) || compare(one.key, other.key)
  );
}

function bySequence(one: NameRecord, other: NameRecord): number {
  return one.sequence - other.sequence;
}
