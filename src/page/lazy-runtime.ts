import type { Clock } from '../base/clock.ts';
import type { Runtime } from '../operations/runtime.ts';

/** Whoever opens the page again shortly after finds all machines at once. */
export const KEPT_MS = 5 * 60_000;

export interface StartedFleet {
  readonly runtime: Runtime;
  readonly close: () => Promise<void>;
}

/** A fleet that is started by the first who needs it, and ended some minutes after the last. */
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

  /** The function gives it back. */
  async use(): Promise<{ readonly runtime: Runtime; readonly release: () => void }> {
    if (this.#isClosed) throw new Error('the page is closed');
    this.#users += 1;
    this.#rest.abort();
    this.#started ??= this.#start();
    const release = this.#releaser();
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

  #releaser(): () => void {
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#users -= 1;
      if (this.#users === 0) void this.#endLater();
    };
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
