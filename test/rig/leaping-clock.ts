import type { Clock } from '../../src/base/clock.ts';

interface Sleeper {
  readonly wakeAtMs: number;
  readonly wake: () => void;
}

/**
 * A clock that leaps: once everything waits, it jumps to the earliest sleeper's time. Minutes of
 * a test's time take no time, in the order in which they would have passed. For code whose other waits are
 * promises of the test's own; a real socket is slower than the leap.
 */
export function leapingClock(startMs = 1_000_000): Clock {
  let nowMs = startMs;
  let leaping = false;
  const sleepers = new Set<Sleeper>();

  const leap = (): void => {
    if (leaping || sleepers.size === 0) return;
    leaping = true;
    // Whatever can go on without the clock goes first.
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
    // Of another origin than `now`, so that a span of the one never passes for one of the other.
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
