import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';
import { KNOWN, PageOfPeers } from './peer-page.ts';
import { findOn, type PeerDeps, type PeerSite } from './peer.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
/** Requests at once: beside the probes of the process, which have their own limit. */
const CONCURRENCY = 16;

/** Asked in one round without having had anything: in a tailnet of thousands the others come later. */
const MAX_STRANGERS = 256;

/** Each is an open connection. Nobody has as many machines with a node service; those beyond are asked at each scan. */
export const MAX_FOLLOWED = 128;
/** Of them, machines that do not admit this one: they must leave room for those that do. */
const MAX_FORBIDDEN = 32;

/** How long a service may hold its answer; it may itself hold it less long. */
export const HOLD_MS = 25_000;

/** At most so often is a service asked that has nothing new and does not hold its answer. */
export const FOLLOW_PACE_MS = 1000;
/** At most so often is one asked that has something new each time; what changes after a while of rest is known at once. */
const NEWS_PACE_MS = 250;
/** Changes in a row that are known at once: a turn that begins, asks and ends makes as many. */
const NEWS_AT_ONCE = 8;

export interface PeerBookDeps extends PeerDeps {
  /** Something on the peers is other than it was. */
  readonly onChange: () => void;
}

interface Followed {
  readonly stop: AbortController;
  /** The request under way. */
  hold: AbortController | undefined;
  done: Promise<void>;
}

/**
 * What is known of all peers. While it follows, one request is kept open at each peer with a node service, so that what begins
 * or ends there is known at once.
 */
export class PeerBook {
  readonly #deps: PeerBookDeps;
  readonly #knownLimit = pLimit(CONCURRENCY);
  /** Of their own: those that never answer must not hold up those that do. */
  readonly #strangerLimit = pLimit(CONCURRENCY);
  readonly #pages = new Map<string, PageOfPeers>();
  readonly #root = new AbortController();
  readonly #followed = new Map<PageOfPeers, Followed>();
  #follows = false;

  constructor(deps: PeerBookDeps) {
    this.#deps = deps;
    // Every request listens for the end.
    setMaxListeners(0, this.#root.signal);
  }

  /** Keeps only these peers, and starts over with one that has another address or has just come online. */
  keep(sites: readonly PeerSite[]): void {
    const wanted = new Set(sites.map(({ node }) => node.id));
    for (const [id, page] of this.#pages) if (!wanted.has(id)) this.#forget(id, page);
    for (const site of sites) {
      const { id, online } = site.node;
      const page = this.#pages.get(id);
      if (page === undefined || !page.isAt(site)) {
        if (page !== undefined) this.#forget(id, page);
        this.#pages.set(id, new PageOfPeers(site, this.#deps.clock));
        continue;
      }
      if (!page.site.node.online && online && page.asking === undefined) this.#doubt(page);
      page.site = site;
    }
  }

  /**
   * Asks the peers that are due, or with `thorough` those that are not, too; in either case not all of thousands. Those with a
   * service first, those offline last. Resolves when all have answered.
   */
  async ask({ thorough = false }: { readonly thorough?: boolean } = {}): Promise<void> {
    const nowMs = this.#deps.clock.monotonic();
    // A peer that is followed and answers announces a change by itself.
    const isDue = (page: PageOfPeers): boolean => {
      const followed = this.#followed.get(page);
      return page.dueMs <= nowMs && (followed === undefined || (followed.hold === undefined && page.misses > 0));
    };
    const due = [...this.#pages.values()].filter((page) => page.asking === undefined && (thorough || isDue(page)));
    const known = due.filter(({ rank }) => rank <= KNOWN);
    const strangers = due.filter(({ rank }) => rank > KNOWN);
    const first = strangers.toSorted((one, other) => one.rank - other.rank).slice(0, MAX_STRANGERS);
    for (const page of [...known, ...first]) this.#begin(page);
    await Promise.all([...this.#pages.values()].flatMap(({ asking }) => asking ?? []));
  }

  /** From now on `onChange` is called at once when an instance starts or ends on a peer with a node service. */
  follow(): void {
    if (this.#root.signal.aborted) return;
    this.#follows = true;
    for (const page of this.#pages.values()) this.#follow(page);
  }

  /** Ends every request that is held open; `follow` begins again. */
  async unfollow(): Promise<void> {
    this.#follows = false;
    const all = [...this.#followed];
    for (const [page] of all) this.#unfollow(page);
    await Promise.all(all.map(([, { done }]) => done));
  }

  get found(): {
    readonly candidates: readonly Candidate[];
    readonly notes: readonly Note[];
    readonly dropped: readonly Note[];
  } {
    const pages = [...this.#pages.values()];
    return {
      candidates: pages.flatMap(({ candidates }) => candidates),
      notes: pages.flatMap(({ notes }) => notes),
      dropped: pages.flatMap((page) => page.whyNothing(this.#deps) ?? []),
    };
  }

  /** Ends every request. */
  async close(): Promise<void> {
    this.#root.abort();
    await Promise.all([this.unfollow(), ...[...this.#pages.values()].flatMap(({ asking }) => asking ?? [])]);
  }

  /** The tailnet was away: what is held open may lead nowhere, and what was silent may answer. */
  doubt(): void {
    for (const page of this.#pages.values()) if (page.asking === undefined) this.#doubt(page);
  }

  #doubt(page: PageOfPeers): void {
    page.dueMs = 0;
    this.#interrupt(page);
  }

  #forget(id: string, page: PageOfPeers): void {
    this.#pages.delete(id);
    this.#unfollow(page);
  }

  #begin(page: PageOfPeers): void {
    // Where it is being followed, one request at once is enough.
    this.#interrupt(page);
    const limit = page.rank <= KNOWN ? this.#knownLimit : this.#strangerLimit;
    page.asking = limit(async () => {
      await this.#look(page, 0, this.#root.signal);
    }).finally(() => {
      page.asking = undefined;
    });
  }

  /** Whether it found anything new. */
  async #look(page: PageOfPeers, waitMs: number, signal: AbortSignal): Promise<boolean> {
    // Forgotten or restarted while it waited for its turn.
    if (signal.aborted || !this.#has(page)) return false;
    try {
      const finding = await findOn(page.site, this.#deps, signal, page.question(waitMs));
      if (!this.#has(page)) return false;
      const isNews = page.note(finding);
      this.#follow(page);
      if (isNews) this.#deps.onChange();
      return isNews;
    } catch {
      // Only the end of everything.
      return false;
    }
  }

  /** From now on, if there is something to follow and room for it. */
  #follow(page: PageOfPeers): void {
    const { size } = this.#followed;
    if (!this.#follows || this.#followed.has(page)) return;
    if (page.service ? size >= MAX_FOLLOWED : !page.forbidden || size >= MAX_FORBIDDEN) return;
    const followed: Followed = { stop: new AbortController(), hold: undefined, done: Promise.resolve() };
    this.#followed.set(page, followed);
    followed.done = this.#keepAsking(page, followed).finally(() => {
      if (this.#followed.get(page) === followed) this.#followed.delete(page);
    });
  }

  /** Ends the request under way, which may have died without a word. The next, shortly, is not held: whether anybody is there is to be known soon. */
  #interrupt(page: PageOfPeers): void {
    page.known = undefined;
    const followed = this.#followed.get(page);
    followed?.hold?.abort();
    if (followed !== undefined) followed.hold = undefined;
  }

  #unfollow(page: PageOfPeers): void {
    const followed = this.#followed.get(page);
    if (followed === undefined) return;
    this.#followed.delete(page);
    followed.stop.abort();
    followed.hold?.abort();
  }

  async #keepAsking(page: PageOfPeers, followed: Followed): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = followed.stop;
    let paceMs = 0;
    /** Grows with each request, and time makes up for it. */
    let newsMs = 0;
    const dueMs = (): number => Math.max(paceMs, page.dueMs);
    while (!signal.aborted && (page.service || page.forbidden)) {
      // A scan may have asked just now.
      await page.asking;
      if (!signal.aborted && dueMs() <= clock.monotonic()) {
        const beganMs = clock.monotonic();
        newsMs = Math.max(newsMs, beganMs) + NEWS_PACE_MS;
        const isNews = await this.#hold(page, followed);
        paceMs = isNews ? newsMs - NEWS_AT_ONCE * NEWS_PACE_MS : beganMs + FOLLOW_PACE_MS;
      }
      // No longer: a scan may find meanwhile that it is there again.
      await clock.sleep(Math.min(dueMs() - clock.monotonic(), FOLLOW_PACE_MS), signal);
    }
  }

  async #hold(page: PageOfPeers, followed: Followed): Promise<boolean> {
    const hold = new AbortController();
    followed.hold = hold;
    const isNews = await this.#look(page, HOLD_MS, hold.signal);
    if (followed.hold === hold) followed.hold = undefined;
    return isNews;
  }

  #has(page: PageOfPeers): boolean {
    return this.#pages.get(page.site.node.id) === page;
  }
}
