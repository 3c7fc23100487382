import type { Message, SessionStatus } from '../opencode/schema.ts';

/** One word for what a session does, with the reason where there is one. */
export interface SessionState {
  readonly state: 'idle' | 'busy' | 'retrying' | 'interrupted';
  readonly reason?: string;
}

/**
 * From the status and, where known, the session's newest message. A message that is not complete and
 * not in status stays so for ever: its process was killed in the middle.
 */
export function sessionState(status: SessionStatus | undefined, newest?: Message): SessionState {
  if (status?.type === 'busy') return { state: 'busy' };
  if (status?.type === 'retry') return { state: 'retrying', reason: `attempt ${status.attempt}: ${status.message}` };
  const info = newest?.info;
  if (info?.role === 'assistant' && info.time.completed === undefined && info.error === undefined) {
    return {
      state: 'interrupted',
      reason:
        'its last message was never completed; the instance was restarted, or another process of the same home works on it',
    };
  }
  return { state: 'idle' };
}
