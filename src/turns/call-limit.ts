import type { Clock } from '../base/clock.ts';

export interface CallLimit {
  readonly signal: AbortSignal;
  /** By the monotonic clock. */
  readonly deadlineMs: number;
}

/** The call was cancelled or has expired before its next change, and does nothing more. */
export class CallOver extends Error {
  override readonly name = 'CallOver';
}

export function isOver({ signal, deadlineMs }: CallLimit, clock: Clock): boolean {
  return signal.aborted || clock.monotonic() >= deadlineMs;
}

/**
 * Called after the last await before each change.
 * @throws {CallOver} the call is over
 */
export function checkOpen(limit: CallLimit, clock: Clock): void {
  if (!isOver(limit, clock)) return;
  throw new CallOver(limit.signal.aborted ? 'the call was cancelled' : 'the time for this call ran out');
}
