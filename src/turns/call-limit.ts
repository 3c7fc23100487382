import type { Clock } from '../base/clock.ts';

/** Until when a call may change something. */
export interface CallLimit {
  readonly signal: AbortSignal;
  /** By the monotonic clock. */
  readonly deadlineMs: number;
}

/** The call was cancelled or has expired: what it was about to do is not done, and it does nothing more. */
export class CallOver extends Error {
  override readonly name = 'CallOver';
}

export function isOver({ signal, deadlineMs }: CallLimit, clock: Clock): boolean {
  return signal.aborted || clock.monotonic() >= deadlineMs;
}

/**
 * Asked after every await before something is changed.
 * @throws {CallOver} the call is over
 */
export function checkOpen(limit: CallLimit, clock: Clock): void {
  if (!isOver(limit, clock)) return;
  throw new CallOver(limit.signal.aborted ? 'the call was cancelled' : 'the time for this call ran out');
}
