import type { Clock } from '../../src/base/clock.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

export interface ManualClock extends Clock {
  /** Sets the time; sleeps end only by `wake`. */
  set(nowMs: number): void;
  /** Ends the sleep of this length once it has begun. */
  wake(ms: number): void;
}

/** Stands still until told. */
export function manualClock(): ManualClock {
  let nowMs = 1_000_000;
  const sleeps = new Map<number, Deferred<void>>();
  const sleepOf = (ms: number): Deferred<void> => {
    const known = sleeps.get(ms) ?? deferred<void>();
    sleeps.set(ms, known);
    return known;
  };
  return {
    // Somebody sets it back all the time.
    now: () => -nowMs,
    monotonic: () => nowMs,
    set: (value) => void (nowMs = value),
    wake: (ms) => sleepOf(ms).resolve(),
    sleep: (ms, signal) =>
      Promise.race([
        sleepOf(ms).promise,
        new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true })),
      ]),
  };
}
