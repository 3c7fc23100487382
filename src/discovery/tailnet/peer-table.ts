import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';
import { KNOWN, PeerRecord } from './peer-record.ts';
import { findOn, type PeerDeps, type PeerSite } from './peer.ts';
import type { Scan } from '../source.ts';

/** Concurrent requests, besides the probes of the process, which have their own limit. */
const CONCURRENCY = 16;

/** Peers without a known service or opencode that are asked in one round; in a tailnet of thousands the rest wait for the next. */
const MAX_STRANGERS = 256;

/** Each holds a connection. Nobody has as many machines with a node service; the rest are asked by each scan. */
export const MAX_FOLLOWED = 128;
/** How many of them may be machines that do not admit this one: they must leave room for those that do. */
const MAX_FORBIDDEN = 32;

/** How long a service may hold its answer. */
export const HOLD_MS = 25_000;

/** Shortest interval between requests to a service that has no news and does not hold its answer. */
export const FOLLOW_PACE_MS = 1000;
/** Interval between requests to a service that has news each time, after a burst of `NEWS_BURST` without a pause. */
const NEWS_PACE_MS = 250;
/** A turn that begins, asks and ends makes as many changes. */
const NEWS_BURST = 8;

export interface PeerTableDeps extends PeerDeps {
  readonly onChange: () => void;
}

interface Followed {
  readonly stop: AbortController;
  /** Cancels the request under way. */
  hold: AbortController | undefined;
  done: Promise<void>;
}

/**
 * The state of all peers. While following, keeps one request open at each peer with a node service, so that changes there
 * arrive at once.
 */
export class PeerTable {
  readonly #deps: PeerTableDeps;
  readonly #knownLimit = pLimit(CONCURRENCY);
  /** Separate, so that peers that never answer do not hold up those that do. */
  readonly #strangerLimit = pLimit(CONCURRENCY);
  readonly #peers = new Map<string, PeerRecord>();
  readonly #root = new AbortController();
  readonly #followed = new Map<PeerRecord, Followed>();
  #isFollowing = false;

  constructor(deps: PeerTableDeps) {
    this.#deps = deps;
    // Every request listens to it.
    setMaxListeners(0, this.#root.signal);
  }

  /** Removes all other peers, starts over with one whose address changed, and asks one soon that has come online. */
  keep(sites: readonly PeerSite[]): void {
    const wanted = new Set(sites.map(({ node }) => node.id));
    for (const [id, peer] of this.#peers) if (!wanted.has(id)) this.#remove(id, peer);
    for (const site of sites) {
      const { id, online } = site.node;
      const peer = this.#peers.get(id);
      if (peer === undefined || !peer.isAt(site)) {
        if (peer !== undefined) this.#remove(id, peer);
        this.#peers.set(id, new PeerRecord(site, this.#deps.clock));
        continue;
      }
      if (!peer.site.node.online && online && peer.asking === undefined) this.#askAgain(peer);
      peer.site = site;
    }
  }

  /**
   * Asks the peers that are due, with `thorough` all of them, limited by `MAX_STRANGERS`: those with a service first, those
   * offline last. Resolves when all have answered.
   */
  async ask({ thorough = false }: { readonly thorough?: boolean } = {}): Promise<void> {
    const nowMs = this.#deps.clock.monotonic();
    // A peer that is followed and answers announces changes by itself.
    const isDue = (peer: PeerRecord): boolean => {
      const followed = this.#followed.get(peer);
      return peer.dueMs <= nowMs && (followed === undefined || (followed.hold === undefined && peer.misses > 0));
    };
    const due = [...this.#peers.values()].filter((peer) => peer.asking === undefined && (thorough || isDue(peer)));
    const known = due.filter(({ rank }) => rank <= KNOWN);
    const strangers = due.filter(({ rank }) => rank > KNOWN);
    const first = strangers.toSorted((one, other) => one.rank - other.rank).slice(0, MAX_STRANGERS);
    for (const peer of [...known, ...first]) this.#begin(peer);
    await Promise.all(this.#asking);
  }

  /** From now on `onChange` is called at once if an instance starts or ends on a peer with a node service. */
  follow(): void {
    if (this.#root.signal.aborted) return;
    this.#isFollowing = true;
    for (const peer of this.#peers.values()) this.#follow(peer);
  }

  /** Ends every held request; `follow` begins again. */
  async unfollow(): Promise<void> {
    this.#isFollowing = false;
    const all = [...this.#followed];
    for (const [peer] of all) this.#unfollow(peer);
    await Promise.all(all.map(([, { done }]) => done));
  }

  get found(): Required<Scan> {
    const peers = [...this.#peers.values()];
    return {
      candidates: peers.flatMap(({ candidates }) => candidates),
      notes: peers.flatMap(({ notes }) => notes),
      dropped: peers.flatMap((peer) => peer.emptyReason(this.#deps) ?? []),
    };
  }

  /** Ends every request. */
  async close(): Promise<void> {
    this.#root.abort();
    await Promise.all([this.unfollow(), ...this.#asking]);
  }

  /** After tailscaled was down: held requests may hang, and silent peers may answer now. */
  askAllAgain(): void {
    for (const peer of this.#peers.values()) if (peer.asking === undefined) this.#askAgain(peer);
  }

  get #asking(): Promise<void>[] {
    return [...this.#peers.values()].flatMap(({ asking }) => asking ?? []);
  }

  #askAgain(peer: PeerRecord): void {
    peer.dueMs = 0;
    this.#interrupt(peer);
  }

  #remove(id: string, peer: PeerRecord): void {
    this.#peers.delete(id);
    this.#unfollow(peer);
  }

  #begin(peer: PeerRecord): void {
    // One request at a time to a peer.
    this.#interrupt(peer);
    const limit = peer.rank <= KNOWN ? this.#knownLimit : this.#strangerLimit;
    peer.asking = limit(async () => {
      await this.#request(peer, 0, this.#root.signal);
    }).finally(() => {
      peer.asking = undefined;
    });
  }

  /** Resolves to whether anything changed. Never rejects. */
  async #request(peer: PeerRecord, waitMs: number, signal: AbortSignal): Promise<boolean> {
    // The peer may have been removed or replaced while this waited for a slot.
    if (signal.aborted || !this.#has(peer)) return false;
    try {
      const finding = await findOn(peer.site, this.#deps, signal, peer.question(waitMs));
      if (!this.#has(peer)) return false;
      const isNews = peer.update(finding);
      this.#follow(peer);
      if (isNews) this.#deps.onChange();
      return isNews;
    } catch {
      // `signal` aborted.
      return false;
    }
  }

  /** Follows the peer if there is a reason and room. */
  #follow(peer: PeerRecord): void {
    const { size } = this.#followed;
    if (!this.#isFollowing || this.#followed.has(peer)) return;
    if (peer.hasService ? size >= MAX_FOLLOWED : !peer.forbidden || size >= MAX_FORBIDDEN) return;
    const followed: Followed = { stop: new AbortController(), hold: undefined, done: Promise.resolve() };
    this.#followed.set(peer, followed);
    followed.done = this.#keepAsking(peer, followed).finally(() => {
      if (this.#followed.get(peer) === followed) this.#followed.delete(peer);
    });
  }

  /** Cancels the request under way, whose connection may be dead. Clears the known list, so that the next request is answered at once. */
  #interrupt(peer: PeerRecord): void {
    peer.known = undefined;
    const followed = this.#followed.get(peer);
    followed?.hold?.abort();
    if (followed !== undefined) followed.hold = undefined;
  }

  #unfollow(peer: PeerRecord): void {
    const followed = this.#followed.get(peer);
    if (followed === undefined) return;
    this.#followed.delete(peer);
    followed.stop.abort();
    followed.hold?.abort();
  }

  async #keepAsking(peer: PeerRecord, followed: Followed): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = followed.stop;
    let paceMs = 0;
    /** Each request adds `NEWS_PACE_MS`; pauses begin once this is `NEWS_BURST` requests ahead of the clock. */
    let newsMs = 0;
    const dueMs = (): number => Math.max(paceMs, peer.dueMs);
    while (!signal.aborted && (peer.hasService || peer.forbidden)) {
      // A scan may have just asked.
      await peer.asking;
      if (!signal.aborted && dueMs() <= clock.monotonic()) {
        const beganMs = clock.monotonic();
        newsMs = Math.max(newsMs, beganMs) + NEWS_PACE_MS;
        const isNews = await this.#hold(peer, followed);
        paceMs = isNews ? newsMs - NEWS_BURST * NEWS_PACE_MS : beganMs + FOLLOW_PACE_MS;
      }
      // Bounded, because a scan may make the peer due earlier.
      await clock.sleep(Math.min(dueMs() - clock.monotonic(), FOLLOW_PACE_MS), signal);
    }
  }

  async #hold(peer: PeerRecord, followed: Followed): Promise<boolean> {
    const hold = new AbortController();
    followed.hold = hold;
    const isNews = await this.#request(peer, HOLD_MS, hold.signal);
    if (followed.hold === hold) followed.hold = undefined;
    return isNews;
  }

  #has(peer: PeerRecord): boolean {
    return this.#peers.get(peer.site.node.id) === peer;
  }
}
