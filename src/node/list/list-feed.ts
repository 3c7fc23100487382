import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';

/** The list, serialized. */
export interface ListState {
  readonly body: string;
  /** A strong entity tag, quoted; equal bodies have equal tags. */
  readonly etag: string;
}

export interface ListFeedDeps {
  /** The current list; undefined while this machine is in no tailnet. */
  readonly read: () => Promise<object | undefined>;
  readonly clock: Clock;
}

/**
 * `touch` announces most changes. A process that was killed, or replaced under the same name, is found only by reading the list,
 * which costs a few system calls and happens only while a request waits.
 */
export const FEED_READ_INTERVAL_MS = 1000;

/** The list of instances, and its changes for held requests. One read serves all of them. */
export class ListFeed {
  readonly #deps: ListFeedDeps;
  readonly #root = new AbortController();
  /** Each is called after every read. */
  readonly #waiting = new Set<(state: ListState | undefined) => void>();
  #state: ListState | undefined;
  #touched = false;
  #wake: () => void = () => {};
  #looking: Promise<void> | undefined;

  constructor(deps: ListFeedDeps) {
    this.#deps = deps;
  }

  /** Requests held for a change. */
  get waiting(): number {
    return this.#waiting.size;
  }

  async now(): Promise<ListState | undefined> {
    const list = await this.#deps.read();
    this.#state = list === undefined ? undefined : stateOf(list);
    return this.#state;
  }

  /** The list may have changed. */
  touch(): void {
    this.#touched = true;
    this.#wake();
  }

  /** The first list that is not `isKnown`; the current one after `waitMs`, on abort or on close. */
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
    // It may have changed since the caller read it.
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
      // A failed read is repeated; until then the last list counts.
      await this.now().catch(() => {});
      for (const notice of this.#waiting) notice(this.#state);
      const rest = new AbortController();
      this.#wake = () => rest.abort();
      if (this.#touched || this.#waiting.size === 0 || signal.aborted) rest.abort();
      await this.#deps.clock.sleep(FEED_READ_INTERVAL_MS, rest.signal);
    }
    this.#wake = () => {};
    this.#looking = undefined;
  }
}

function stateOf(list: object): ListState {
  const body = JSON.stringify(list);
  return { body, etag: `"${createHash('sha256').update(body).digest('base64url')}"` };
}
