import type { Clock } from '../../src/base/clock.ts';

interface Sleeper {
  readonly wakeAtMs: number;
  readonly wake: () => void;
}

/** A clock that moves only by `advance` and `step`. */
export class ManualClock implements Clock {
  #monotonicMs = 1_000;
  #epochMs = 1_700_000_000_000;
  readonly #sleepers = new Set<Sleeper>();

  now(): number {
    return this.#epochMs + this.#monotonicMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  /** Changes the machine's clock by `ms`; no time passes. */
  step(ms: number): void {
    this.#epochMs += ms;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const wake = (): void => {
        this.#sleepers.delete(sleeper);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      const sleeper = { wakeAtMs: this.#monotonicMs + ms, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }

  /** How many sleeps would end if `ms` passed. */
  due(ms = Infinity): number {
    return [...this.#sleepers].filter(({ wakeAtMs }) => wakeAtMs <= this.#monotonicMs + ms).length;
  }

  /** Lets `ms` pass: each sleep ends at its own time, and its consequences happen before the next one ends. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#monotonicMs + ms;
    await settle();
    for (;;) {
      const [first] = [...this.#sleepers].toSorted((one, other) => one.wakeAtMs - other.wakeAtMs);
      if (first === undefined || first.wakeAtMs > untilMs) break;
      this.#monotonicMs = Math.max(this.#monotonicMs, first.wakeAtMs);
      first.wake();
      await settle();
    }
    this.#monotonicMs = untilMs;
    await settle();
  }
}

/** Resolves once everything that needs no time and no socket has happened. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
