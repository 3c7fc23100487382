/** Time as the program sees it; tests inject their own. All durations are milliseconds. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Resolves after `ms`, or at once when `signal` aborts. Never rejects and never keeps the process alive by itself. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
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
      const timer = setTimeout(finish, ms);
      timer.unref();
      signal?.addEventListener('abort', finish, { once: true });
    }),
};

export interface Repetition {
  readonly clock: Clock;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * Runs `work` again and again until it resolves with `done`, with pauses that double up to `maxMs`; after a run that lasted
 * longer than that, which went well, they begin again. Rejects where `work` does.
 */
export async function repeat(
  { clock, signal, firstMs, maxMs }: Repetition,
  work: () => Promise<'done' | 'again'>,
): Promise<void> {
  let pauseMs = firstMs;
  while (!signal.aborted) {
    const startMs = clock.now();
    if ((await work()) === 'done') return;
    if (clock.now() - startMs >= maxMs) pauseMs = firstMs;
    await clock.sleep(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, maxMs);
  }
}
