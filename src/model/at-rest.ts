/** The parts of a session's newest message that show its state. */
export interface NewestMessage {
  readonly role: 'user' | 'assistant';
  /** By the instance's clock, ms since the epoch. */
  readonly time: { readonly created: number; readonly completed?: number | undefined };
  readonly error?: unknown;
}

/** State of a session that is not running. */
export interface AtRest {
  readonly state: 'idle' | 'starting' | 'interrupted';
  readonly reason?: string;
}

/** A cold instance took 9 s to begin a turn (opencode 1.18.33), and its clock may differ from ours by as much. */
const STARTING_MS = 20_000;

/** An incomplete message of a session that is not running stays incomplete: the process was killed during the turn. */
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
  // opencode accepts a message up to a second before its status reports the session as busy.
  if (Math.abs(nowMs - time.created) < STARTING_MS) return { state: 'starting' };
  return { state: 'interrupted', reason: 'its last message was never answered' };
}
