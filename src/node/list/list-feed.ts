import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';

/** The list as it goes out. */
export interface ListState {
  readonly body: string;
  /** A strong entity tag, in its quotes: equal for equal bodies. */
  readonly etag: string;
}

export interface ListFeedDeps {
  /** The list as it is now; undefined while this machine is in no tailnet. */
  readonly read: () => Promise<object | undefined>;
  readonly clock: Clock;
}

/**
 * Most changes are told by `touch`. A process that was killed, or one that has taken another's place under the same name,
 * is only seen by looking, which costs a few system calls, and only while somebody waits.
 */
export const FEED_LOOK_MS = 1000;

/** The list of instances, and word of its changes for those who wait. One look serves all of them. */
export class ListFeed {
  readonly #deps: ListFeedDeps;
  readonly #root = new AbortController();
  /** Each is called after every look. */
  readonly #waiting = new Set<(state: ListState | undefined) => void>();
  #state: ListState | undefined;
  #touched = false;
  #wake: () => void = () => {};
  #looking: Promise<void> | undefined;

  constructor(deps: ListFeedDeps) {
    this.#deps = deps;
  }

  /** How many wait for a change. */
  get waiting(): number {
    return this.#waiting.size;
  }

  async now(): Promise<ListState | undefined> {
    const list = await this.#deps.read();
    this.#state = list === undefined ? undefined : stateOf(list);
    return this.#state;
  }

  /** The list may be another. */
  touch(): void {
    this.#touched = true;
    this.#wake();
  }

  /** The first list that is not `isKnown`; after `waitMs`, when `signal` aborts and after `close` the last one, whatever it is. */
  async next(
    isKnown: (state: ListState) => boolean,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ListState | undefined> {
    const over = new LinkedAbort(signal, this.#root.signal);
    const notice = (state: ListState | undefined): void => {
      if (state === undefined || !isKnown(state)) over.abort();
    };
    this.#waiting.add(notice);
    // It may have changed since the caller asked for it.
    notice(this.#state);
    this.#looking ??= this.#look();
    await this.#deps.clock.sleep(waitMs, over.signal);
    this.#waiting.delete(notice);
    over.end();
    if (this.#waiting.size === 0) this.#wake();
    return this.#state;
  }

  async close(): Promise<void> {
    this.#root.abort();
    this.#wake();
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { signal } = this.#root;
    while (this.#waiting.size > 0 && !signal.aborted) {
      this.#touched = false;
      // One that failed is repeated; who waits gets the last.
      await this.now().catch(() => {});
      for (const notice of this.#waiting) notice(this.#state);
      const rest = new AbortController();
      this.#wake = () => rest.abort();
      if (this.#touched || this.#waiting.size === 0 || signal.aborted) rest.abort();
      await this.#deps.clock.sleep(FEED_LOOK_MS, rest.signal);
    }
    this.#wake = () => {};
    this.#looking = undefined;
  }
}

function stateOf(list: object): ListState {
  const body = JSON.stringify(list);
  return { body, etag: `"${createHash('sha256').update(body).digest('base64url')}"` };
}
