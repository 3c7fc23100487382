import type { Clock } from '../../src/base/clock.ts';

interface Sleeper {
  readonly wakeAtMs: number;
  readonly wake: () => void;
}

/**
 * A clock that jumps to the earliest sleeper's time as soon as all code waits, so that minutes pass at once and in order. Only for
 * code that waits for nothing but this clock and promises of the test: the jump does not wait for a real socket.
 */
export function leapingClock(startMs = 1_000_000): Clock {
  let nowMs = startMs;
  let leaping = false;
  const sleepers = new Set<Sleeper>();

  const leap = (): void => {
    if (leaping || sleepers.size === 0) return;
    leaping = true;
    // Code that does not wait for the clock runs first.
    setImmediate(() =>
      setImmediate(() => {
        leaping = false;
        const [first] = [...sleepers].toSorted((a, b) => a.wakeAtMs - b.wakeAtMs);
        if (first === undefined) return;
        nowMs = Math.max(nowMs, first.wakeAtMs);
        first.wake();
        leap();
      }),
    );
  };

  return {
    now: () => nowMs,
    // Not the origin of `now`, so that code that mixes the two fails.
    monotonic: () => nowMs - startMs,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) {
          resolve();
          return;
        }
        const wake = (): void => {
          sleepers.delete(sleeper);
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        const sleeper: Sleeper = { wakeAtMs: nowMs + ms, wake };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', wake, { once: true });
        leap();
      }),
  };
}
