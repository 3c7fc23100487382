import type { OpencodeApi } from '../opencode/api.ts';
import type { Session } from '../opencode/schema.ts';
import type { TurnOutcome, TurnResult } from './outcome.ts';
import { quoted } from '../base/plain-text.ts';
import { Transcript } from './transcript.ts';
import { messagesOfTurn } from './turn-messages.ts';

/** Of a model's error: a provider's whole answer may stand in it. */
const MAX_ERROR_CHARS = 400;

/** How the last turn of an idle session ended, and what it said. Rejects with `RequestError`. */
export async function lastTurn(api: OpencodeApi, session: Session): Promise<TurnResult> {
  const { messages } = await api.messages(session.id, { limit: 1 });
  const newest = messages.at(-1)?.info;
  if (newest === undefined) return { outcome: { kind: 'completed' }, text: '', textPending: false };
  const messageId = newest.role === 'user' ? newest.id : newest.parentID;
  const turn = new Transcript(session.id, messageId);
  turn.reconcile(await messagesOfTurn(api, session.id, messageId));
  return { outcome: endOf(turn), messageId, text: turn.text, textPending: false };
}

/** Of a turn that does not run any more. */
export function endOf(turn: Transcript): TurnOutcome {
  const last = turn.assistants.at(-1);
  const error = last?.error;
  if (error?.name === 'MessageAbortedError') return { kind: 'aborted' };
  if (error !== undefined)
    return {
      kind: 'failed',
      reason: `opencode says ${quoted([error.name, error.data?.message].filter(Boolean).join(': '), MAX_ERROR_CHARS)}`,
    };
  if (last?.time.completed === undefined)
    return { kind: 'interrupted', reason: 'it stopped in the middle; the instance was restarted or lost it' };
  // An abort between two attempts of a failing model leaves neither an error nor a reason to finish (1.18.33).
  return last.finish === undefined && turn.text === '' ? { kind: 'aborted' } : { kind: 'completed' };
}
