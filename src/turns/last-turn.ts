import type { OpencodeApi } from '../opencode/api.ts';
import type { Session } from '../opencode/schema.ts';
import type { TurnOutcome, TurnResult } from './outcome.ts';
import { quoted } from '../base/plain-text.ts';
import { Transcript } from './transcript.ts';
import { lastTurnOf } from './turn-messages.ts';

/** Of a model's error: a provider's whole answer may stand in it. */
const MAX_ERROR_CHARS = 400;

/** How the last turn of an idle session ended, and what it said. Rejects with `RequestError`. */
export async function lastTurn(api: OpencodeApi, session: Session): Promise<TurnResult> {
  const last = await lastTurnOf(api, session);
  if (last === undefined) return { outcome: { kind: 'completed' }, text: '', textPending: false };
  const turn = new Transcript(session.id, last.messageId);
  turn.reconcile(last.messages);
  return { outcome: endOf(turn), messageId: last.messageId, text: turn.text, textPending: false };
}

/** Of a turn that does not run any more. */
export function endOf({ assistants, concluded, together }: Transcript): TurnOutcome {
  const interrupted = (reason: string): TurnOutcome => ({ kind: 'interrupted', reason });
  const newest = assistants.at(-1);
  if (newest === undefined) return interrupted('the instance took the message and did not begin to answer it');
  if (newest.error?.name === 'MessageAbortedError') return { kind: 'aborted' };
  if (newest.error !== undefined) return { kind: 'failed', reason: saidError(newest.error) };
  if (newest.time.completed === undefined)
    return interrupted('it stopped in the middle; the instance was restarted or lost it');
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
  // It may end on a tool call: after a bare reject of its permission.
  return { kind: 'completed', ...(reasons.length > 0 && { reason: reasons.join('; ') }) };
}

/** Reasons to finish with which an answer is not whole. */
const END_REASONS: Readonly<Record<string, readonly string[]>> = {
  length: ['the model reached the limit of its output, so that its answer is cut'],
  'content-filter': ["the provider's content filter stopped it, so that its answer is cut"],
};

/** opencode's words for an error, quoted, without the places in its program that it adds where a plugin threw. */
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
