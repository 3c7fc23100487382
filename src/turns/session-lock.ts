import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type CallLimit, checkOpen } from './call-limit.ts';

/** The place of a holder. Callers from other places need not wait for an unreachable one. */
export interface Holder {
  readonly place: string;
  /** Resolves when the place is unreachable, or `signal` aborts. Never rejects. */
  readonly whenLost: (signal: AbortSignal) => Promise<void>;
}

interface Entry {
  readonly holder: Holder | undefined;
  readonly released: Promise<void>;
}

/** A lock per key, in order of arrival: sends to one session run one at a time. */
export class SessionLock {
  readonly #clock: Clock;
  /** The holder of each key, and those that wait, in order of arrival. */
  readonly #queues = new Map<string, Set<Entry>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Resolves with a release function once every earlier holder of `key` has released, or is unreachable at another place.
   * @throws {CallOver} the call was over first; later callers still wait for the earlier ones
   */
  async acquire(key: string, limit: CallLimit, holder?: Holder): Promise<() => void> {
    const queue = this.#queues.get(key) ?? new Set();
    this.#queues.set(key, queue);
    const earlier = [...queue];
    const { promise: released, resolve } = withResolvers();
    const entry = { holder, released };
    queue.add(entry);
    const release = (): void => {
      queue.delete(entry);
      if (queue.size === 0 && this.#queues.get(key) === queue) this.#queues.delete(key);
      resolve();
    };
    const over = new LinkedAbort(limit.signal);
    const { signal } = over;
    try {
      await Promise.race([
        this.#untilOver({ ...limit, signal }),
        Promise.all(earlier.map((one) => untilEnded(one, holder, signal))),
      ]);
    } catch (error) {
      release();
      throw error;
    } finally {
      over.end();
    }
    return release;
  }

  async #untilOver(limit: CallLimit): Promise<never> {
    for (;;) {
      checkOpen(limit, this.#clock);
      await this.#clock.sleep(limit.deadlineMs - this.#clock.monotonic(), limit.signal);
    }
  }
}

async function untilEnded({ holder, released }: Entry, own: Holder | undefined, signal: AbortSignal): Promise<void> {
  const isElsewhere = holder !== undefined && own !== undefined && holder.place !== own.place;
  await (isElsewhere ? Promise.race([released, holder.whenLost(signal)]) : released);
}

/** Promise.withResolvers is not in Node 20. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
