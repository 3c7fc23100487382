import type { Clock } from './clock.ts';
import { LinkedAbort } from './linked-abort.ts';
import { unlessAborted } from './unless-aborted.ts';

export interface TimeLimit {
  readonly clock: Clock;
  readonly ms: number;
  /** The error after the time limit. */
  readonly late: () => Error;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Settles like `work`, or rejects with `late()` after `ms`, or with the reason of `signal` as soon as it aborts. The signal passed
 * to `work` aborts in each case, and when `work` has settled.
 */
export async function within<T>(
  { clock, ms, late, signal }: TimeLimit,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const cut = new LinkedAbort(signal);
  cut.signal.throwIfAborted();
  void clock.sleep(ms, cut.signal).then(() => {
    if (!cut.signal.aborted) cut.abort(late());
  });
  try {
    return await unlessAborted(work(cut.signal), cut.signal);
  } finally {
    cut.end();
  }
}
