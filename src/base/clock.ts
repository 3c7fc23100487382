import { LinkedAbort } from './linked-abort.ts';

/** The clock of the program; tests inject their own. All durations are milliseconds. */
export interface Clock {
  /** Milliseconds since the Unix epoch, for display and for comparison with other machines. May jump. */
  now(): number;
  /** Milliseconds that only increase, for durations and deadlines. On Linux it stops while the machine sleeps. */
  monotonic(): number;
  /** Resolves after `ms`, which may be `Infinity`, or as soon as `signal` aborts. Never rejects, and does not keep the process alive. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Converts a reading of `monotonic()` to `now()`. */
export function wallTime(clock: Clock, monotonicMs: number): number {
  return Math.round(clock.now() - (clock.monotonic() - monotonicMs));
}

/** A sleep of the machine, or a change of its clock, is noticed within this time. */
const WALL_CHECK_MS = 60_000;

/** How long to sleep before checking again whether `now()` has reached `wallMs`, which may be `Infinity`. */
export function untilWall(clock: Clock, wallMs: number): number {
  const leftMs = Math.max(0, wallMs - clock.now());
  return leftMs === Number.POSITIVE_INFINITY ? leftMs : Math.min(leftMs, WALL_CHECK_MS);
}

/** setTimeout takes 31 bits; it turns a longer time into 1 ms. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const finish = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', finish);
        resolve();
      };
      let timer: NodeJS.Timeout;
      const wait = (leftMs: number): void => {
        timer =
          leftMs > LONGEST_TIMER_MS
            ? setTimeout(() => wait(leftMs - LONGEST_TIMER_MS), LONGEST_TIMER_MS)
            : setTimeout(finish, leftMs);
        timer.unref();
      };
      wait(ms);
      signal?.addEventListener('abort', finish, { once: true });
    }),
};

/** A sleep that `wake` ends early. A wake while nobody sleeps ends the next sleep, so none is lost. */
export class WakeableSleep {
  readonly #clock: Clock;
  #isWoken = false;
  #rest: LinkedAbort | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wake(): void {
    this.#isWoken = true;
    this.#rest?.abort();
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    const rest = new LinkedAbort(signal);
    this.#rest = rest;
    if (this.#isWoken) rest.abort();
    await this.#clock.sleep(ms, rest.signal);
    rest.end();
    this.#isWoken = false;
  }
}

export interface Repetition {
  readonly clock: Clock;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * Repeats `work` until it resolves to `done`. Pauses double up to `maxMs`, and start over after a run longer than `maxMs`, which
 * counts as a success. Rejects if `work` does.
 */
export async function repeat(
  { clock, signal, firstMs, maxMs }: Repetition,
  work: () => Promise<'done' | 'again'>,
): Promise<void> {
  let pauseMs = firstMs;
  while (!signal.aborted) {
    const startMs = clock.monotonic();
    if ((await work()) === 'done') return;
    if (clock.monotonic() - startMs >= maxMs) pauseMs = firstMs;
    await clock.sleep(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, maxMs);
  }
}
