import type { Clock } from '../base/clock.ts';
import type { Runtime } from '../operations/runtime.ts';

/** Reopening the page within this time shows all machines immediately. */
export const KEPT_MS = 5 * 60_000;

export interface StartedFleet {
  readonly runtime: Runtime;
  readonly close: () => Promise<void>;
}

/** A fleet that starts with its first user, and ends `KEPT_MS` after the last has left. */
export class LazyRuntime {
  readonly #start: () => Promise<StartedFleet>;
  readonly #clock: Clock;
  #started: Promise<StartedFleet> | undefined;
  #users = 0;
  #rest = new AbortController();
  #isClosed = false;

  constructor(start: () => Promise<StartedFleet>, clock: Clock) {
    this.#start = start;
    this.#clock = clock;
  }

  /** The caller must call `release` once. */
  async use(): Promise<{ readonly runtime: Runtime; readonly release: () => void }> {
    if (this.#isClosed) throw new Error('the page is closed');
    this.#users += 1;
    this.#rest.abort();
    this.#started ??= this.#start();
    const release = once(() => {
      this.#users -= 1;
      if (this.#users === 0) void this.#endLater();
    });
    try {
      return { runtime: (await this.#started).runtime, release };
    } catch (error) {
      this.#started = undefined;
      release();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#rest.abort();
    await this.#end();
  }

  async #endLater(): Promise<void> {
    const rest = new AbortController();
    this.#rest = rest;
    await this.#clock.sleep(KEPT_MS, rest.signal);
    if (!rest.signal.aborted && this.#users === 0) await this.#end();
  }

  async #end(): Promise<void> {
    const started = this.#started;
    this.#started = undefined;
    await started?.then(({ close }) => close()).catch(() => {});
  }
}

/** `work`, done by the first call only. */
export function once(work: () => void): () => void {
  let isOver = false;
  return () => {
    if (!isOver) work();
    isOver = true;
  };
}
