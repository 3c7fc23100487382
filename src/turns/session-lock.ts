import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type CallLimit, checkOpen } from './call-limit.ts';

/** Serializes by key: what is sent to one session goes one after the other. */
export class SessionLock {
  readonly #clock: Clock;
  readonly #tails = new Map<string, Promise<void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Resolves with a release function once every earlier holder of `key` has released.
   * @throws {CallOver} the call was over first; those behind it still wait for those before it
   */
  async acquire(key: string, limit?: CallLimit): Promise<() => void> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const { promise, resolve: release } = withResolvers();
    const tail = before.then(() => promise);
    this.#tails.set(key, tail);
    // Not before `tail` has resolved: one that leaves the end of the queue leaves its earlier holders in it.
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    try {
      await (limit === undefined ? before : this.#unlessOver(before, limit));
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }

  async #unlessOver(turn: Promise<void>, limit: CallLimit): Promise<void> {
    const wait = new LinkedAbort(limit.signal);
    try {
      await Promise.race([turn, this.#untilOver({ ...limit, signal: wait.signal })]);
      checkOpen(limit, this.#clock);
    } finally {
      wait.end();
    }
  }

  async #untilOver(limit: CallLimit): Promise<never> {
    for (;;) {
      checkOpen(limit, this.#clock);
      await this.#clock.sleep(limit.deadlineMs - this.#clock.monotonic(), limit.signal);
    }
  }
}

/** Promise.withResolvers is not in Node 20. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
