import { atRest, type AtRest } from '../../model/at-rest.ts';
import type { Message, SessionStatus } from '../../opencode/schema.ts';
import { retryingLine } from '../../opencode/waiting.ts';

/** What a session does. */
export interface SessionState {
  /** `unknown`: its directory was not asked. */
  readonly state: AtRest['state'] | 'busy' | 'retrying' | 'waiting' | 'stalled' | 'unknown';
  readonly reason?: string;
}

export interface SessionFacts {
  readonly newest?: Message | undefined;
  /** Its waiting requests, one line each. */
  readonly waiting?: readonly string[];
  /** See `stalledSince`. */
  readonly stalledSinceMs?: number | undefined;
  readonly nowMs: number;
}

/** From the status, else from the session's newest message if known. */
export function sessionState(
  status: SessionStatus | undefined,
  { newest, waiting = [], stalledSinceMs, nowMs }: SessionFacts,
): SessionState {
  if (status !== undefined && status.type !== 'idle') {
    if (waiting.length > 0) return { state: 'waiting', reason: `for ${waiting.join('; ')}` };
    if (status.type === 'retry') return { state: 'retrying', reason: retryingLine(status) };
    if (stalledSinceMs !== undefined) return stalled(stalledSinceMs);
    return { state: 'busy' };
  }
  return atRest(newest?.info, nowMs);
}

export function stalled(sinceMs: number): SessionState & { readonly state: 'stalled' } {
  return { state: 'stalled', reason: `no sign of life since ${new Date(sinceMs).toISOString()}` };
}
