/** The parts of a session's newest message that show its state. */
export interface NewestMessage {
  readonly role: 'user' | 'assistant';
  /** By the instance's clock, ms since the epoch. */
  readonly time: { readonly created: number; readonly completed?: number | undefined };
  readonly error?: unknown;
}

/** How a session stands that does not run. */
export interface AtRest {
  readonly state: 'idle' | 'starting' | 'interrupted';
  readonly reason?: string;
}

/** A cold instance began after 9 s (opencode 1.18.33); our clock and the instance's may differ by as much. */
const STARTING_MS = 20_000;

/** A message that is not complete and not in status stays so for ever: its process was killed in the middle. */
export function atRest(newest: NewestMessage | undefined, nowMs: number): AtRest {
  if (newest === undefined) return { state: 'idle' };
  const { role, time, error } = newest;
  if (role === 'assistant') {
    if (time.completed !== undefined || (error !== undefined && error !== null)) return { state: 'idle' };
    return {
      state: 'interrupted',
      reason:
        'its last message was never completed; the instance was restarted, or another process of the same home works on it',
    };
  }
  // opencode takes a message up to a second before its status says so.
  if (Math.abs(nowMs - time.created) < STARTING_MS) return { state: 'starting' };
  return { state: 'interrupted', reason: 'its last message was never answered' };
}
