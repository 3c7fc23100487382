import { type AdvisedText, inWords, type ReaderWords } from '../../model/advice.ts';
import type { Session } from '../../opencode/schema.ts';
import { retryingLine } from '../../opencode/waiting.ts';
import { multiLine, sentence } from '../../base/plain-text.ts';
import type { TurnOutcome, TurnResult } from '../../turns/outcome.ts';
import {
  type Answer,
  type CutText,
  cutText,
  formatAge,
  NotSentError,
  OperationError,
  quoteBlock,
  quoteName,
  sessionRef,
} from '../answer.ts';
import { renderCut } from '../sessions/messages.ts';
import type { Runtime } from '../runtime.ts';
import type { TurnView } from '../shapes.ts';
import type { Waiting } from '../../model/instance.ts';
import { requestLine, waitingLine } from '../respond/waiting.ts';

/** A long answer is shown as its beginning and its end, which says how it ended; half of this each. */
const TEXT_CHARS = 3_600;
/** Room for a request's line (500) and the advice after it. */
const MAX_REASON_CHARS = 1_000;

const MAX_OPEN_IN = 5;

export interface ViewOptions {
  readonly runtime: Pick<Runtime, 'clock' | 'words'>;
  /** Limit of the answer's text. */
  readonly maxChars?: number;
  /** Whether something was aborted first, if the caller wanted that. */
  readonly aborted?: boolean | undefined;
  /** Without the advice on how to go on. */
  readonly brief?: true;
  /** Names of other opencodes with the session's directory open. */
  readonly alsoOpenIn?: readonly string[] | undefined;
  /** Requests settled meanwhile, in a few words each. */
  readonly settled?: readonly string[] | undefined;
}

/**
 * The result of a turn.
 * @throws {OperationError} nothing was started, or it is unknown whether something was
 */
export function turnAnswer(
  instance: string,
  session: Pick<Session, 'id' | 'title'>,
  result: TurnResult,
  options: ViewOptions,
): Answer<TurnView> {
  const name = quoteName(instance);
  const { clock, words } = options.runtime;
  const described = describe(result, instance, session.id, clock.now());
  const { outcome, reason } = described;
  if (described.isError) {
    const why: AdvisedText = (said) =>
      `${name}, session ${session.id}: ${reason}. ${inWords(described.next ?? '', said)}`;
    throw outcome === 'busy' ? new NotSentError(why) : new OperationError(why);
  }
  const next =
    options.brief && described.waiting === undefined ? undefined : described.next && inWords(described.next, words);
  const text = middleCut(...wholeAndNew(result), options.maxChars ?? TEXT_CHARS);
  const data: TurnView = {
    instance,
    session: sessionRef(session),
    ...(options.aborted !== undefined && { aborted: options.aborted }),
    ...(options.settled !== undefined && options.settled.length > 0 && { settled: options.settled.join('; ') }),
    outcome,
    ...(reason !== undefined && { reason }),
    ...(described.waiting !== undefined && { waiting: described.waiting }),
    ...(result.messageId !== undefined && { message_id: result.messageId }),
    ...(options.alsoOpenIn !== undefined &&
      options.alsoOpenIn.length > 0 && { also_open_in: options.alsoOpenIn.slice(0, MAX_OPEN_IN) }),
    text: text.text,
    ...(text.cut !== undefined && { cut: text.cut }),
    ...(next !== undefined && { next }),
  };
  return { data, text: render(data, name, result.textPending) };
}

/** The result of a waiting turn that a watcher reported. */
export function waitingAnswer(
  instance: string,
  session: Pick<Session, 'id' | 'title'>,
  waiting: Waiting,
  words: ReaderWords,
): Answer<TurnView> {
  const name = quoteName(instance);
  const data: TurnView = {
    instance,
    session: sessionRef(session),
    outcome: 'waiting',
    waiting: [waitingLine(waiting)],
    next: inWords(settleAdvice(instance, waiting.id), words),
  };
  return { data, text: render(data, name, false) };
}

function settleAdvice(instance: string, requestId: string): AdvisedText {
  return ({ respondTo }) => `Settle it with ${respondTo(instance, requestId)}, or in that opencode.`;
}

interface Described {
  readonly outcome: string;
  readonly reason?: string;
  readonly waiting?: string[];
  readonly next?: AdvisedText;
  readonly isError?: true;
}

function describe({ outcome, messageId }: TurnResult, instance: string, sessionId: string, nowMs: number): Described {
  const goOn = ({ follow }: ReaderWords): string => `To see how it goes on: ${follow(instance, sessionId, messageId)}.`;
  const stillRuns: AdvisedText = (words) => `It still runs. ${goOn(words)}`;
  switch (outcome.kind) {
    case 'completed':
      return { outcome: 'completed', ...(outcome.reason !== undefined && { reason: outcome.reason }) };
    case 'failed':
      return { outcome: 'failed', reason: sentence(outcome.reason, 500) };
    case 'aborted':
      return { outcome: 'aborted', reason: 'somebody aborted it' };
    case 'waiting': {
      const { waiting, ofSubAgent, reason } = outcome;
      const waits = { outcome: 'waiting', waiting: [requestLine(waiting, ofSubAgent)] };
      // The reason has its own advice: respond would ask the person in vain once more.
      if (reason !== undefined) return { ...waits, reason: sentence(reason, MAX_REASON_CHARS) };
      return { ...waits, next: settleAdvice(instance, waiting.request.id) };
    }
    case 'running':
      return { ...running(outcome, nowMs), next: stillRuns };
    case 'cancelled':
      return { outcome: 'running', next: stillRuns };
    case 'interrupted':
      return {
        outcome: 'interrupted',
        reason: outcome.reason,
        next: (words) => `${goOn(words)} Send again to continue.`,
      };
    case 'busy':
      return {
        isError: true,
        outcome: 'busy',
        reason: `nothing was sent: ${sentence(outcome.reason, 300)}`,
        next: ({ sendAnyway }) => `Wait and read, or ${sendAnyway}.`,
      };
    case 'refused':
      return {
        isError: true,
        outcome: 'refused',
        reason: `the message was not taken: ${sentence(outcome.reason, 500)}`,
        next: 'Nothing runs because of it.',
      };
    case 'unknown':
      return {
        isError: true,
        outcome: 'unknown',
        reason: `it is unknown whether the message arrived, or what became of it: ${sentence(outcome.reason, 500)}`,
        next: (words) => `Look before sending it again. ${goOn(words)}`,
      };
  }
}

function running(
  { retrying, stalledSinceMs }: Extract<TurnOutcome, { kind: 'running' }>,
  nowMs: number,
): Pick<Described, 'outcome' | 'reason'> {
  if (retrying !== undefined) {
    return {
      outcome: 'retrying',
      reason: `the model fails; ${retryingLine(retrying)}`,
    };
  }
  if (stalledSinceMs === undefined) return { outcome: 'running' };
  const since = new Date(stalledSinceMs).toISOString();
  return {
    outcome: 'stalled',
    reason: `no sign of life since ${since}, ${formatAge(nowMs - stalledSinceMs)} ago`,
  };
}

/** The text that `read` pages through, and where in it the new part begins: what was said before a turn was joined is not shown. */
function wholeAndNew({ text, wholeText = text }: TurnResult): readonly [whole: string, start: number] {
  const [whole, fresh] = [wholeText, text].map((one) => multiLine(one, Number.MAX_SAFE_INTEGER)) as [string, string];
  // If parts ran side by side, the new text is not the end of the whole: show all.
  return [whole, whole.endsWith(fresh) ? whole.length - fresh.length : 0];
}

/** The text from `start`; if too long, its beginning and end, with `next_offset` at the beginning of the gap. */
function middleCut(whole: string, start: number, limit: number): CutText {
  if (whole.length - start <= limit) return { text: whole.slice(start) };
  const half = Math.floor(limit / 2);
  const first = cutText(whole, half, start);
  const last = cutText(whole, half, whole.length - half);
  const left = whole.length - start - first.text.length - last.text.length;
  return { ...first, text: `${first.text}\n[… ${left} characters left out …]\n${last.text}` };
}

function render(data: TurnView, name: string, textPending: boolean): string {
  const head = [
    `${name}, session ${data.session?.id ?? ''} ${JSON.stringify(data.session?.title ?? '')}: ${data.outcome}`,
  ];
  if (data.waiting !== undefined) head.push(`for ${data.waiting.join('; ')}`);
  if (data.message_id !== undefined) head.push(`(message ${data.message_id})`);
  if (data.aborted === true) head.push('(what ran before was aborted)');
  if (data.settled !== undefined) head.push(`(settled: ${data.settled})`);
  if (data.reason !== undefined) head.push(`(${data.reason})`);
  const lines = [head.join(' ')];
  if (data.text !== undefined && data.text !== '') lines.push(quoteBlock(data.text));
  else if (data.outcome === 'completed') lines.push('(it ended without any text)');
  if (data.cut !== undefined && data.message_id !== undefined) lines.push(renderCut(data.message_id, data.cut));
  if (data.also_open_in !== undefined)
    lines.push(
      `(the session may also be open in ${data.also_open_in.map((name) => quoteName(name)).join(', ')}, which does not show this turn until that opencode is restarted)`,
    );
  if (textPending) lines.push('(a part is still streaming; its text appears when it ends)');
  if (data.next !== undefined) lines.push(data.next);
  return lines.join('\n');
}
