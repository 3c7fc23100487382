import type { OpencodeApi } from '../opencode/api.ts';
import type { Session } from '../opencode/schema.ts';
import { endOf } from '../turns/last-turn.ts';
import { Transcript } from '../turns/transcript.ts';
import { lastTurnOf } from '../turns/turn-messages.ts';
import type { WatchedSession } from '../model/watched.ts';

/** How the last turn of a session ended. */
export interface TurnEnd {
  readonly state: Extract<WatchedSession['state'], 'idle' | 'failed' | 'interrupted'>;
  readonly reason?: string;
  /** By the instance's clock; undefined if the session has no turn. */
  readonly beganMs?: number;
  /** By the instance's clock; undefined if the last message was never completed. */
  readonly endedMs?: number;
}

/** Rejects with `RequestError`. */
export async function endOfTurn(api: OpencodeApi, session: Session): Promise<TurnEnd> {
  const last = await lastTurnOf(api, session);
  if (last === undefined) return { state: 'idle' };
  const turn = new Transcript(session.id, last.messageId);
  turn.reconcile(last.messages);
  const began = last.messages.find(({ info }) => info.id === last.messageId);
  const endedMs = turn.assistants.at(-1)?.time.completed;
  return {
    ...stateOf(endOf(turn)),
    ...(began !== undefined && { beganMs: began.info.time.created }),
    ...(endedMs !== undefined && { endedMs }),
  };
}

function stateOf(outcome: ReturnType<typeof endOf>): Pick<TurnEnd, 'state' | 'reason'> {
  if (outcome.kind === 'failed' || outcome.kind === 'interrupted')
    return { state: outcome.kind, reason: outcome.reason };
  return outcome.kind === 'aborted' ? { state: 'interrupted', reason: 'it was stopped' } : { state: 'idle' };
}

/** When the running turn began, by the instance's clock: the time of the message that it answers. Rejects with `RequestError`. */
export async function beginOfTurn(api: OpencodeApi, sessionId: string): Promise<number | undefined> {
  const { messages } = await api.messages(sessionId, { limit: 2 });
  const asked = messages.findLast(({ info }) => info.role === 'user');
  if (asked !== undefined) return asked.info.time.created;
  const newest = messages.at(-1)?.info;
  if (newest?.role !== 'assistant') return undefined;
  return (await api.message(sessionId, newest.parentID))?.info.time.created;
}
