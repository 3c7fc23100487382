import type { Message, SessionStatus } from '../opencode/schema.ts';

/** One word for what a session does, with the reason where there is one. */
export interface SessionState {
  readonly state: 'starting' | 'idle' | 'busy' | 'retrying' | 'waiting' | 'stalled' | 'interrupted';
  readonly reason?: string;
}

/** A cold instance began after 9 s; our clock and the instance's may differ by as much. */
const STARTING_MS = 20_000;

/** What is known beside the status. */
export interface SessionFacts {
  readonly newest?: Message | undefined;
  /** What it waits for, one line each. */
  readonly waiting?: readonly string[];
  /** See `stalledSince`. */
  readonly stalledSinceMs?: number | undefined;
  readonly nowMs: number;
}

/**
 * From the status and, where known, the session's newest message. A message that is not complete and
 * not in status stays so for ever: its process was killed in the middle.
 */
export function sessionState(
  status: SessionStatus | undefined,
  { newest, waiting = [], stalledSinceMs, nowMs }: SessionFacts,
): SessionState {
  if (status !== undefined && status.type !== 'idle') {
    if (waiting.length > 0) return { state: 'waiting', reason: `for ${waiting.join('; ')}` };
    if (status.type === 'retry') return { state: 'retrying', reason: `attempt ${status.attempt}: ${status.message}` };
    if (stalledSinceMs !== undefined)
      return { state: 'stalled', reason: `nothing was heard of it since ${new Date(stalledSinceMs).toISOString()}` };
    return { state: 'busy' };
  }
  const info = newest?.info;
  if (info?.role === 'assistant' && info.time.completed === undefined && info.error === undefined) {
    return {
      state: 'interrupted',
      reason:
        'its last message was never completed; the instance was restarted, or another process of the same home works on it',
    };
  }
  // opencode takes a message up to a second before its status says so.
  if (info?.role === 'user' && Math.abs(nowMs - info.time.created) < STARTING_MS) return { state: 'starting' };
  if (info?.role === 'user') return { state: 'interrupted', reason: 'its last message was never answered' };
  return { state: 'idle' };
}
