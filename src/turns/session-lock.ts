import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type CallLimit, checkOpen } from './call-limit.ts';

/** Where somebody holds a key. One of another place need not wait for what cannot be reached. */
export interface Holder {
  readonly place: string;
  /** Resolves when the place is found unreachable, or `signal` aborts. Never rejects. */
  readonly whenLost: (signal: AbortSignal) => Promise<void>;
}

interface Entry {
  readonly holder: Holder | undefined;
  readonly released: Promise<void>;
}

/** Serializes by key: what is sent to one session goes one after the other. */
export class SessionLock {
  readonly #clock: Clock;
  /** Who holds a key, and who waits for it, in the order in which they came. */
  readonly #queues = new Map<string, Set<Entry>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Resolves with a release function once every earlier holder of `key` has released, or is lost at another place than `holder`.
   * @throws {CallOver} the call was over first; those behind it still wait for those before it
   */
  async acquire(key: string, limit?: CallLimit, holder?: Holder): Promise<() => void> {
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
    const over = new LinkedAbort(limit?.signal);
    const ended = Promise.all(earlier.map((one) => untilEnded(one, holder, over.signal))).then(() => {});
    try {
      await (limit === undefined ? ended : this.#unlessOver(ended, limit));
    } catch (error) {
      release();
      throw error;
    } finally {
      over.end();
    }
    return release;
  }

  async #unlessOver(turn: Promise<void>, limit: CallLimit): Promise<void> {
    const wait = new LinkedAbort(limit.signal);
    try {
      await Promise.race([turn, this.#untilOver({ ...limit, signal: wait.signal })]);
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
