import { isDeepStrictEqual } from 'node:util';

import type { Announcement } from '../../mdns/announcements.ts';
import type { Origin } from '../../mdns/lan.ts';
import { isLinkLocal } from '../../mdns/links.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Note } from '../../model/candidate.ts';

/** opencode's records have a TTL of 8 h and it sends no reliable goodbye, so the LAN is queried repeatedly. */
export const QUERY_EVERY_MS = 60_000;
/** Far more than anyone has on a LAN; each costs a probe. */
export const MAX_SIGHTINGS = 500;
/** Far more than anyone runs on one machine. */
export const MAX_OF_ONE_SENDER = 64;

/** A service is dropped if its machine answers for others but not for it this many times. */
const UNANSWERED = 3;
/**
 * Everything of a machine is dropped after this long without a packet, whatever the TTL: in 8 h the address may have moved to
 * another machine. Ten queries in a row are lost only if multicast does not work.
 */
const KEPT_MS = 10 * QUERY_EVERY_MS;
/** A goodbye causes a new probe, at most this often for one service. */
const GOODBYE_EVERY_MS = 10_000;
/** A service that returns after this long is probed again: its machine may have slept. */
const SILENCE_MS = 2.5 * QUERY_EVERY_MS;

const MAX_NOTED = 10;
const MAX_SUBJECT_CHARS = 100;

/** One service as one machine advertises it. */
export interface Sighting {
  readonly announcement: Announcement;
  readonly origin: Origin;
  /** Without the zone. */
  readonly address: string;
  /** When it last said goodbye or came back; a change causes a new probe. */
  readonly revisedMs: number | undefined;
}

interface Entry extends Sighting {
  announcement: Announcement;
  origin: Origin;
  revisedMs: number | undefined;
  lastSeenMs: number;
  saidGoodbye: boolean;
}

/**
 * The services announced on the LAN. Keyed by sender, because all machines use the same names: a machine's announcement or
 * goodbye affects only its own services. A service is reached at the source address of its packets; the address records in them
 * may name anyone.
 */
export class Sightings {
  readonly #entries = new Map<string, Entry>();
  /** Time of the last packet of each sender that has entries. */
  readonly #senders = new Map<string, { lastSeenMs: number; count: number }>();
  /** Senders with services over a limit. */
  readonly #refused = new Set<string>();

  /** Records one announcement. True if a new scan may differ. */
  add(announcement: Announcement, origin: Origin, nowMs: number): boolean {
    const address = bare(origin.address);
    const key = `${address} ${announcement.port} ${announcement.kind}`;
    const known = this.#entries.get(key);
    if (known === undefined) return !announcement.isGoodbye && this.#insert(key, announcement, origin, nowMs);
    // Another machine on another interface may have the same link-local address: the first keeps it while it is advertised.
    const isElsewhere = known.origin.interfaceName !== origin.interfaceName;
    if (isLinkLocal(address) && isElsewhere && nowMs - known.lastSeenMs < SILENCE_MS) return false;
    if (announcement.isGoodbye) return this.#goodbye(known, announcement, nowMs);
    const isBack = known.saidGoodbye || nowMs - known.lastSeenMs > SILENCE_MS;
    const isOther = isElsewhere || !isSame(known.announcement, announcement);
    Object.assign(known, { announcement, origin, lastSeenMs: nowMs, saidGoodbye: false });
    if (isBack) known.revisedMs = nowMs;
    this.#senderOf(address).lastSeenMs = nowMs;
    return isBack || isOther;
  }

  /** The current sightings, oldest first. `isNeighbour`: whether the sender is still on that interface. */
  current(nowMs: number, isNeighbour: (origin: Origin) => boolean): readonly Sighting[] {
    this.#forget(nowMs, isNeighbour);
    const entries = [...this.#entries.values()];
    const ipv4 = new Map(
      entries.filter(({ origin }) => origin.family === 'IPv4').map((entry) => [twinKey(entry, entry.address), entry]),
    );
    return entries.filter((entry) => !hasTwin(entry, ipv4));
  }

  get notes(): readonly Note[] {
    return [...this.#refused].map((sender) => ({
      subject: sender,
      reason: `advertises more services than are listed: at most ${MAX_OF_ONE_SENDER} of one machine and ${MAX_SIGHTINGS} in all`,
    }));
  }

  #insert(key: string, announcement: Announcement, origin: Origin, nowMs: number): boolean {
    const address = bare(origin.address);
    const sender = this.#senderOf(address);
    if (this.#entries.size >= MAX_SIGHTINGS || sender.count >= MAX_OF_ONE_SENDER) {
      if (sender.count === 0) this.#senders.delete(address);
      const isNews = this.#refused.size < MAX_NOTED && !this.#refused.has(address);
      if (isNews) this.#refused.add(singleLine(address, MAX_SUBJECT_CHARS));
      return isNews;
    }
    sender.count += 1;
    sender.lastSeenMs = nowMs;
    const fresh = { announcement, origin, address, lastSeenMs: nowMs, revisedMs: undefined, saidGoodbye: false };
    this.#entries.set(key, fresh);
    return true;
  }

  /** Keeps the entry: a probe shows whether it is alive. */
  #goodbye(known: Entry, announcement: Announcement, nowMs: number): boolean {
    if (known.announcement.name !== announcement.name) return false;
    if (known.revisedMs !== undefined && nowMs - known.revisedMs < GOODBYE_EVERY_MS) return false;
    known.revisedMs = nowMs;
    known.saidGoodbye = true;
    return true;
  }

  #senderOf(address: string): { lastSeenMs: number; count: number } {
    const known = this.#senders.get(address);
    if (known !== undefined) return known;
    const sender = { lastSeenMs: 0, count: 0 };
    this.#senders.set(address, sender);
    return sender;
  }

  #forget(nowMs: number, isNeighbour: (origin: Origin) => boolean): void {
    for (const [key, { address, origin, lastSeenMs }] of this.#entries) {
      const sender = this.#senderOf(address);
      const isAnswered = sender.lastSeenMs - lastSeenMs <= UNANSWERED * QUERY_EVERY_MS;
      if (isAnswered && nowMs - lastSeenMs <= KEPT_MS && isNeighbour(origin)) continue;
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
 * Whether an IPv6 entry is also seen over IPv4 on the same interface, and so adds nothing. Proven if the packets of each name
 * the source address of the other; one packet alone could name anyone.
 */
function hasTwin(entry: Entry, ipv4: ReadonlyMap<string, Entry>): boolean {
  if (entry.origin.family === 'IPv4') return false;
  return entry.announcement.addresses.some((address) => {
    const twin = ipv4.get(twinKey(entry, address));
    return (
      twin !== undefined &&
      twin.announcement.name === entry.announcement.name &&
      twin.announcement.addresses.includes(entry.address)
    );
  });
}

function twinKey({ announcement: { kind, port }, origin: { interfaceName } }: Entry, address: string): string {
  return [kind, port, interfaceName, address].join(' ');
}

function isSame(one: Announcement, other: Announcement): boolean {
  return (
    one.name === other.name &&
    one.addresses.length === other.addresses.length &&
    isDeepStrictEqual(one.claims, other.claims)
  );
}

function bare(address: string): string {
  return (address.split('%', 1)[0] ?? '').toLowerCase();
}
