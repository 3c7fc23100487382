import type { OpencodeApi } from '../opencode/api.ts';
import type { Session } from '../opencode/schema.ts';
import type { TurnOutcome, TurnResult } from './outcome.ts';
import { quoted } from '../base/plain-text.ts';
import { Transcript } from './transcript.ts';
import { lastTurnOf } from './turn-messages.ts';

/** A model's error may contain a provider's whole answer. */
const MAX_ERROR_CHARS = 400;

/** The outcome and text of the last turn of an idle session. Rejects with `RequestError`. */
export async function lastTurn(api: Pick<OpencodeApi, 'messages'>, session: Session): Promise<TurnResult> {
  const last = await lastTurnOf(api, session);
  if (last === undefined) return { outcome: { kind: 'completed' }, text: '', textPending: false };
  const turn = new Transcript(session.id, last.messageId);
  turn.reconcile(last.messages);
  return { outcome: endOf(turn), messageId: last.messageId, text: turn.text, textPending: false };
}

/** The outcome of a turn that no longer runs. */
export function endOf({ assistants, concluded, together }: Transcript): TurnOutcome {
  const interrupted = (reason: string): TurnOutcome => ({ kind: 'interrupted', reason });
  const newest = assistants.at(-1);
  if (newest === undefined) return interrupted('the instance took the message and did not begin to answer it');
  if (newest.error?.name === 'MessageAbortedError') return { kind: 'aborted' };
  if (newest.error !== undefined) return { kind: 'failed', reason: saidError(newest.error) };
  if (newest.time.completed === undefined)
    return interrupted('it stopped in the middle; the instance was restarted or lost the turn');
  const { finish } = assistants.findLast(({ summary }) => summary !== true) ?? {};
  if (newest.summary === true && (finish === undefined || finish === 'tool-calls'))
    return interrupted('the session was compacted in the middle of it, and opencode did not go on');
  if (finish === undefined && !concluded) return interrupted('it ended without an answer, an error or a reason');
  const reasons = [
    ...(together.length > 0
      ? [`opencode answered it together with ${together.join(', ')}, sent at the same moment`]
      : []),
    ...(END_REASONS[finish ?? ''] ?? []),
  ];
  // It may end on a tool call, after its permission was rejected without a message.
  return { kind: 'completed', ...(reasons.length > 0 && { reason: reasons.join('; ') }) };
}

/** Finish reasons of incomplete answers. */
const END_REASONS: Readonly<Record<string, readonly string[]>> = {
  length: ['the model reached its output limit, so its answer is cut'],
  'content-filter': ["the provider's content filter stopped it, so its answer is cut"],
};

/** opencode's message for an error, quoted, without the stack that it adds if a plugin threw. */
export function saidError({
  name,
  data,
}: {
  name: string;
  data?: { message?: string | undefined } | undefined;
}): string {
  const [message] = (data?.message ?? '').split(/\n\s+at /, 1);
  return `opencode says ${quoted([name, message].filter(Boolean).join(': '), MAX_ERROR_CHARS)}`;
}
