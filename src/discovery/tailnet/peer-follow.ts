import type { Clock } from '../../base/clock.ts';
import type { PageOfPeers } from './peer-page.ts';

/** Each is an open connection. Nobody has as many machines with a node service; those beyond are asked at each scan. */
export const MAX_FOLLOWED = 128;
/** Of them, machines that do not admit this one: they must leave room for those that do. */
const MAX_FORBIDDEN = 32;

/** How long a service may hold its answer; it may itself hold it less long. */
export const HOLD_MS = 25_000;

/** At most so often is one peer asked, whatever it answers: a service that holds nothing, or whose list changes without end. */
export const FOLLOW_PACE_MS = 1000;

export interface PeerFollowDeps {
  readonly clock: Clock;
  /** Asks the peer, which may hold its answer for so long, and takes down what it says. Never rejects; ends with the signal. */
  readonly look: (page: PageOfPeers, waitMs: number, signal: AbortSignal) => Promise<void>;
}

interface Followed {
  readonly stop: AbortController;
  /** The request under way. */
  hold: AbortController | undefined;
  done: Promise<void>;
}

/** Keeps one request open at each peer with a node service, so that what begins or ends there is known at once. */
export class PeerFollow {
  readonly #deps: PeerFollowDeps;
  readonly #followed = new Map<PageOfPeers, Followed>();
  #isOn = false;

  constructor(deps: PeerFollowDeps) {
    this.#deps = deps;
  }

  start(pages: Iterable<PageOfPeers>): void {
    this.#isOn = true;
    for (const page of pages) this.follow(page);
  }

  /** From now on, if there is something to follow and room for it. */
  follow(page: PageOfPeers): void {
    const size = this.#followed.size;
    if (!this.#isOn || this.#followed.has(page)) return;
    if (page.service ? size >= MAX_FOLLOWED : !page.forbidden || size >= MAX_FORBIDDEN) return;
    const followed: Followed = { stop: new AbortController(), hold: undefined, done: Promise.resolve() };
    this.#followed.set(page, followed);
    followed.done = this.#keepAsking(page, followed).finally(() => {
      if (this.#followed.get(page) === followed) this.#followed.delete(page);
    });
  }

  /** Whether the peer would tell of a change by itself. */
  isHolding(page: PageOfPeers): boolean {
    return this.#followed.get(page)?.hold !== undefined;
  }

  /** Ends the request under way, which may have died without a word. The next, shortly, is not held: whether anybody is there is to be known soon. */
  interrupt(page: PageOfPeers): void {
    page.etag = undefined;
    const followed = this.#followed.get(page);
    followed?.hold?.abort();
    if (followed !== undefined) followed.hold = undefined;
  }

  forget(page: PageOfPeers): void {
    const followed = this.#followed.get(page);
    if (followed === undefined) return;
    this.#followed.delete(page);
    followed.stop.abort();
    followed.hold?.abort();
  }

  /** Ends every request; `start` begins anew. */
  async stop(): Promise<void> {
    this.#isOn = false;
    const all = [...this.#followed];
    for (const [page] of all) this.forget(page);
    await Promise.all(all.map(([, { done }]) => done));
  }

  async #keepAsking(page: PageOfPeers, followed: Followed): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = followed.stop;
    let paceMs = 0;
    const dueMs = (): number => Math.max(paceMs, page.dueMs);
    while (!signal.aborted && (page.service || page.forbidden)) {
      // A scan may have asked just now.
      await page.asking;
      if (!signal.aborted && dueMs() <= clock.now()) {
        paceMs = clock.now() + FOLLOW_PACE_MS;
        await this.#hold(page, followed);
      }
      // No longer: a scan may find meanwhile that it is there again.
      await clock.sleep(Math.min(dueMs() - clock.now(), FOLLOW_PACE_MS), signal);
    }
  }

  async #hold(page: PageOfPeers, followed: Followed): Promise<void> {
    const hold = new AbortController();
    followed.hold = hold;
    await this.#deps.look(page, HOLD_MS, hold.signal);
    if (followed.hold === hold) followed.hold = undefined;
  }
}
