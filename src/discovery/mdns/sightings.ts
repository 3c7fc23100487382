import type { Announcement } from '../../mdns/announcements.ts';
import type { Origin } from '../../mdns/lan.ts';
import { isLinkLocal } from '../../mdns/links.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Note } from '../../model/candidate.ts';
/** How often the LAN is asked: opencode's records are good for 8 h, and it never says that they no longer are. */
export const QUERY_EVERY_MS = 60_000;
/** Nobody has more instances on a LAN, and each one that is advertised costs us a probe. */
export const MAX_SIGHTINGS = 500;
/** Nobody runs more on one machine. */
export const MAX_OF_ONE_SENDER = 64;

/** A machine that still talks has left so many questions for a service unanswered when the service is given up. */
const UNANSWERED = 3;
/**
 * A machine that was silent this long is given up, whatever the TTL: opencode's is 8 h, by when the address may be
 * another machine's, on another LAN even. Ten questions in a row are lost only where multicast does not work.
 */
const KEPT_MS = 10 * QUERY_EVERY_MS;
/** A goodbye makes us ask over HTTP, at most so often for one service. */
const GOODBYE_EVERY_MS = 10_000;
/** A service of which nobody spoke for so long makes us ask over HTTP when somebody does: its machine may have slept. */
const SILENCE_MS = 2.5 * QUERY_EVERY_MS;

const MAX_NOTED = 10;
const MAX_SUBJECT_CHARS = 100;

/** One service as one machine advertises it. */
export interface Sighting {
  readonly announcement: Announcement;
  readonly origin: Origin;
  /** Without the zone. */
  readonly address: string;
  /** When it said goodbye or came back last: a reason to ask it again. */
  readonly revisedMs: number | undefined;
}

interface Entry extends Sighting {
  announcement: Announcement;
  origin: Origin;
  revisedMs: number | undefined;
  heardMs: number;
  saidGoodbye: boolean;
}

/**
 * What was heard on the LAN. A service is told apart by who tells of it: all machines have the same names, so that what one
 * says holds for it alone, and another's goodbye or lie changes nothing. Where a service is reached is the address that its
 * packets come from; the address records in them are the machine's word for addresses that may be anyone's.
 */
export class Sightings {
  readonly #entries = new Map<string, Entry>();
  /** Time of the last packet of each sender that has entries. */
  readonly #senders = new Map<string, { heardMs: number; count: number }>();
  /** Senders of which services were left out. */
  readonly #refused = new Set<string>();

  /** True where it is news: something to look at again. */
  hear(announcement: Announcement, origin: Origin, nowMs: number): boolean {
    const address = bare(origin.address);
    const key = `${address} ${announcement.port} ${announcement.kind}`;
    const known = this.#entries.get(key);
    if (known === undefined) return !announcement.isGoodbye && this.#add(key, announcement, origin, nowMs);
    // A link-local address may be another machine's on another interface: who has it keeps it as long as it is heard there.
    const isElsewhere = known.origin.interfaceName !== origin.interfaceName;
    if (isLinkLocal(address) && isElsewhere && nowMs - known.heardMs < SILENCE_MS) return false;
    if (announcement.isGoodbye) return this.#goodbye(known, announcement, nowMs);
    const isBack = known.saidGoodbye || nowMs - known.heardMs > SILENCE_MS;
    const isOther = isElsewhere || !isSame(known.announcement, announcement);
    Object.assign(known, { announcement, origin, heardMs: nowMs, saidGoodbye: false });
    if (isBack) known.revisedMs = nowMs;
    this.#senderOf(address).heardMs = nowMs;
    return isBack || isOther;
  }

  /** What is believed now, in the order in which it was heard first. `isNeighbour`: whether the sender still is one. */
  current(nowMs: number, isNeighbour: (origin: Origin) => boolean): readonly Sighting[] {
    this.#forget(nowMs, isNeighbour);
    const entries = [...this.#entries.values()];
    const four = new Map(
      entries.filter(({ origin }) => origin.family === 'IPv4').map((entry) => [placeOf(entry, entry.address), entry]),
    );
    return entries.filter((entry) => !hasTwin(entry, four));
  }

  get notes(): readonly Note[] {
    return [...this.#refused].map((sender) => ({
      subject: sender,
      reason: `advertises more than is listed: at most ${MAX_OF_ONE_SENDER} services of one machine and ${MAX_SIGHTINGS} in all`,
    }));
  }

  #add(key: string, announcement: Announcement, origin: Origin, nowMs: number): boolean {
    const address = bare(origin.address);
    const sender = this.#senderOf(address);
    if (this.#entries.size >= MAX_SIGHTINGS || sender.count >= MAX_OF_ONE_SENDER) {
      if (sender.count === 0) this.#senders.delete(address);
      const isNews = this.#refused.size < MAX_NOTED && !this.#refused.has(address);
      if (isNews) this.#refused.add(singleLine(address, MAX_SUBJECT_CHARS));
      return isNews;
    }
    sender.count += 1;
    sender.heardMs = nowMs;
    const fresh = { announcement, origin, address, heardMs: nowMs, revisedMs: undefined, saidGoodbye: false };
    this.#entries.set(key, fresh);
    return true;
  }

  /** It stays: HTTP shows whether it is alive. */
  #goodbye(known: Entry, announcement: Announcement, nowMs: number): boolean {
    if (known.announcement.name !== announcement.name) return false;
    if (known.revisedMs !== undefined && nowMs - known.revisedMs < GOODBYE_EVERY_MS) return false;
    known.revisedMs = nowMs;
    known.saidGoodbye = true;
    return true;
  }

  #senderOf(address: string): { heardMs: number; count: number } {
    const known = this.#senders.get(address);
    if (known !== undefined) return known;
    const sender = { heardMs: 0, count: 0 };
    this.#senders.set(address, sender);
    return sender;
  }

  #forget(nowMs: number, isNeighbour: (origin: Origin) => boolean): void {
    for (const [key, { address, origin, heardMs }] of this.#entries) {
      const sender = this.#senderOf(address);
      const isAnswered = sender.heardMs - heardMs <= UNANSWERED * QUERY_EVERY_MS;
      if (isAnswered && nowMs - heardMs <= KEPT_MS && isNeighbour(origin)) continue;
      this.#entries.delete(key);
      sender.count -= 1;
      if (sender.count === 0) this.#senders.delete(address);
    }
    if (this.#entries.size < MAX_SIGHTINGS)
      for (const one of this.#refused) if (!this.#isFull(one)) this.#refused.delete(one);
  }

  #isFull(address: string): boolean {
    return (this.#senders.get(address)?.count ?? 0) >= MAX_OF_ONE_SENDER;
  }
}

/**
 * Whether the same service is seen by IPv4 on the same interface: then the way by IPv6 fails when that one fails. Address
 * records prove it where each packet names the sender of the other; one packet alone could name anyone.
 */
function hasTwin(entry: Entry, four: ReadonlyMap<string, Entry>): boolean {
  if (entry.origin.family === 'IPv4') return false;
  return entry.announcement.addresses.some((address) => {
    const twin = four.get(placeOf(entry, address));
    return (
      twin !== undefined &&
      twin.announcement.name === entry.announcement.name &&
      twin.announcement.addresses.includes(entry.address)
    );
  });
}

function placeOf({ announcement: { kind, port }, origin: { interfaceName } }: Entry, address: string): string {
  return [kind, port, interfaceName, address].join(' ');
}

function isSame(one: Announcement, other: Announcement): boolean {
  const { id, name, hostname, directory } = one.says;
  return (
    one.name === other.name &&
    id === other.says.id &&
    name === other.says.name &&
    hostname === other.says.hostname &&
    directory === other.says.directory &&
    one.addresses.length === other.addresses.length
  );
}

function bare(address: string): string {
  return (address.split('%', 1)[0] ?? '').toLowerCase();
}
