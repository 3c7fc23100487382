import type { Session } from '../opencode/schema.ts';
import { multiLine, singleLine } from '../plain-text.ts';
import { describePending } from '../turns/pending.ts';
import { runTurn, type TurnOutcome, type TurnResult } from '../turns/turn.ts';
import { abortSession, abortVerified } from './abort.ts';
import { type Answer, cutText, OperationError, quoteBlock, quoteName } from './answer.ts';
import { renderCut } from './messages.ts';
import { findOwner } from './owner.ts';
import { type Call, connect, type Connected, type Runtime } from './runtime.ts';
import { findSession, latestSession } from './session-query.ts';
import type { TurnView } from './shapes.ts';

export interface SendInput {
  readonly instance: string;
  readonly session_id?: string | undefined;
  readonly message?: string | undefined;
  readonly abort?: boolean | undefined;
  /** Return as soon as the message is accepted. */
  readonly async?: boolean | undefined;
}

/** The end of an answer says how it ended: of a long one the beginning and the end are shown. */
const HEAD_CHARS = 2_000;
const TAIL_CHARS = 2_000;
/** A little earlier than the caller's own limit, so that the answer still gets out. */
const RESERVE_MS = 500;

/** Sends a message to a session and follows its turn; aborts what runs there first if asked to. */
export async function send(runtime: Runtime, input: SendInput, call: Call): Promise<Answer<TurnView>> {
  if (input.message === undefined) {
    if (input.abort === true)
      return await abortSession(runtime, { instance: input.instance, session_id: input.session_id }, call);
    throw new OperationError('send needs a message, or abort: true to stop what runs.');
  }
  if (input.message.trim() === '') throw new OperationError('message is empty; nothing was sent.');
  const connected = await connect(runtime, input.instance, call.signal);
  const session = await sessionToDrive(connected, input.session_id);
  const aborted = input.abort === true ? await abortVerified(runtime, connected, session, call.signal) : undefined;
  const result = await serialized(runtime, connected, session, input, call);
  return answer(connected, session, result, input, aborted);
}

async function sessionToDrive(connected: Connected, query: string | undefined): Promise<Session> {
  if (query !== undefined) return await findSession(connected, query);
  return (await latestSession(connected)) ?? (await connected.api.createSession());
}

/** Our sends to one session go one after the other, each until it is seen to run. */
async function serialized(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  input: SendInput,
  call: Call,
): Promise<TurnResult> {
  const release = await runtime.lock.acquire(session.id);
  const follow = new AbortController();
  const stop = (): void => {
    follow.abort();
  };
  call.signal.addEventListener('abort', stop, { once: true });
  if (call.signal.aborted) stop();
  try {
    return await runTurn(
      {
        session,
        text: input.message ?? '',
        deadlineMs: call.deadlineMs - RESERVE_MS,
        signal: follow.signal,
        onText: call.onProgress,
        onStarted: () => {
          release();
          if (input.async === true) stop();
        },
        findOwner: async () => {
          const owner = await findOwner(runtime, connected, session, follow.signal);
          return owner === undefined
            ? undefined
            : `${owner}, another process with the same sessions, works on it; send there`;
        },
      },
      { api: connected.api, clock: runtime.clock },
    );
  } finally {
    call.signal.removeEventListener('abort', stop);
    release();
  }
}

function answer(
  { instance }: Connected,
  session: Session,
  result: TurnResult,
  input: SendInput,
  aborted: boolean | undefined,
): Answer<TurnView> {
  const name = quoteName(instance.name);
  const outcome: TurnOutcome =
    result.outcome.kind === 'cancelled' && input.async === true ? { kind: 'running' } : result.outcome;
  const { kind, reason, next } = tell(outcome, name, session.id, result.messageId);
  if (kind === 'busy' || kind === 'refused' || kind === 'unknown') {
    throw new OperationError(`${name}, session ${session.id}: ${reason}. ${next}`);
  }
  const text = middleCut(multiLine(result.text, Number.MAX_SAFE_INTEGER));
  const data: TurnView = {
    instance: instance.name,
    session: { id: session.id, title: singleLine(session.title, 100) },
    ...(aborted !== undefined && { aborted }),
    outcome: kind,
    ...(reason !== undefined && { reason }),
    ...(result.messageId !== undefined && { message_id: result.messageId }),
    text: text.text,
    ...(text.cut !== undefined && { cut: text.cut }),
    ...(next !== undefined && { next }),
  };
  return { data, text: render(data, name, result.textPending) };
}

interface Told {
  readonly kind: string;
  readonly reason?: string;
  readonly next?: string;
}

function tell(outcome: TurnOutcome, name: string, sessionId: string, messageId: string | undefined): Told {
  const handle = messageId === undefined ? '' : ` and message_id ${messageId}`;
  const goOn = `To see how it goes on: read with instance ${name}, session_id ${sessionId}${handle}.`;
  switch (outcome.kind) {
    case 'completed':
      return { kind: 'completed' };
    case 'failed':
      return { kind: 'failed', reason: singleLine(outcome.reason, 500) };
    case 'aborted':
      return { kind: 'aborted', reason: 'somebody aborted it' };
    case 'waiting':
      return {
        kind: `waiting for ${outcome.pending.kind === 'permission' ? 'permission' : 'an answer'}`,
        reason: singleLine(describePending(outcome.pending), 500),
        next: `It goes on when somebody answers in that opencode. ${goOn}`,
      };
    case 'running': {
      const { retrying } = outcome;
      if (retrying === undefined) return { kind: 'running', next: `It still runs. ${goOn}` };
      const reason = `the model fails; attempt ${retrying.attempt}: ${singleLine(retrying.message, 300)}`;
      return { kind: 'retrying', reason, next: `It still tries. ${goOn}` };
    }
    case 'cancelled':
      return { kind: 'running', next: `It still runs. ${goOn}` };
    case 'interrupted':
      return { kind: 'interrupted', reason: outcome.reason, next: `${goOn} Send again to continue.` };
    case 'busy':
      return {
        kind: 'busy',
        reason: `nothing was sent, because it is ${singleLine(outcome.reason, 300)}`,
        next: `Wait and read, send to another session (create_session), or send with abort: true to stop it first.`,
      };
    case 'refused':
      return {
        kind: 'refused',
        reason: `the message was not taken: ${singleLine(outcome.reason, 500)}`,
        next: 'Nothing runs because of it.',
      };
    case 'unknown':
      return {
        kind: 'unknown',
        reason: `whether the message arrived, or what became of it, cannot be told: ${singleLine(outcome.reason, 500)}`,
        next: `Look before sending it again. ${goOn}`,
      };
  }
}

/** Beginning and end of a text too long for one result; `next_offset` is where the part left out begins. */
function middleCut(text: string): ReturnType<typeof cutText> & { readonly tail?: string } {
  const head = cutText(text, HEAD_CHARS + TAIL_CHARS);
  if (head.cut === undefined) return head;
  const start = cutText(text, HEAD_CHARS);
  const end = cutText(text, TAIL_CHARS, text.length - TAIL_CHARS);
  const left = text.length - start.text.length - end.text.length;
  return {
    text: `${start.text}\n[… ${left} characters left out …]\n${end.text}`,
    ...(start.cut && { cut: start.cut }),
  };
}

function render(data: TurnView, name: string, textPending: boolean): string {
  const head = [
    `${name}, session ${data.session?.id ?? ''} ${JSON.stringify(data.session?.title ?? '')}: ${data.outcome}`,
  ];
  if (data.message_id !== undefined) head.push(`(message ${data.message_id})`);
  if (data.aborted === true) head.push('(what ran before was aborted)');
  if (data.reason !== undefined) head.push(`(${JSON.stringify(data.reason)})`);
  const lines = [head.join(' ')];
  if (data.text !== undefined && data.text !== '') lines.push(quoteBlock(data.text));
  else if (data.outcome === 'completed') lines.push('(it ended without saying anything)');
  if (data.cut !== undefined && data.message_id !== undefined) lines.push(renderCut(data.message_id, data.cut));
  if (textPending) lines.push('(a part is still streaming; its text comes when it ends)');
  if (data.next !== undefined) lines.push(data.next);
  return lines.join('\n');
}
