import type { OpencodeApi } from '../../opencode/api.ts';
import type { Message, Session } from '../../opencode/schema.ts';
import { multiLine } from '../../base/plain-text.ts';
import { Transcript } from '../../turns/transcript.ts';
import { messagesOfTurn, undoneIn } from '../../turns/turn-messages.ts';
import { askedLine, listAsked } from '../respond/asked.ts';
import { type Answer, cutText, OperationError, quoteName } from '../answer.ts';
import { stalledSince } from '../send/following.ts';
import { endState, messageRow, messageRows, PAGE_CHARS, renderMessage, type RowOptions, UNDONE } from './messages.ts';
import { findOtherProcess } from './other-process.ts';
import { type Call, connect, type Connected, type Runtime } from '../runtime.ts';
import { findSession, isMessageId, latestSession, noSuchMessage } from './session-query.ts';
import { isWholeService, sessionNeeded } from '../listing/directories.ts';
import { sessionState } from './session-state.ts';
import { busyIn } from './sessions-at-rest.ts';
import { renderSession, sessionRow } from './sessions.ts';
import type { MessageRow, TranscriptView } from '../shapes.ts';

export interface ReadInput {
  readonly instance: string;
  readonly session_id?: string | undefined;
  readonly message_limit: number;
  readonly message_id?: string | undefined;
  readonly offset?: number | undefined;
  readonly before?: string | undefined;
}

/** Reads a session: its newest messages, an older page, or one message from an offset. */
export async function read(runtime: Runtime, input: ReadInput, call: Call): Promise<Answer<TranscriptView>> {
  const connected = await connect(runtime, input.instance, call);
  const session = await sessionToRead(connected, input.session_id);
  if (input.message_id !== undefined)
    return await readOne(runtime, connected, session, { messageId: input.message_id, offset: input.offset }, call);
  if (input.offset !== undefined) throw new OperationError('offset needs message_id: it is a place in one message.');
  const { api, instance } = connected;
  const [statuses, undone, page] = await Promise.all([
    api.statuses(session.directory),
    undoneIn(api, session),
    api.messages(session.id, {
      limit: input.message_limit,
      ...(input.before === undefined ? {} : { before: input.before }),
    }),
  ]);
  const asked = statuses.has(session.id) ? (await listAsked(connected, [session.directory], statuses)).asked : [];
  const waiting = asked
    .filter((one) => one.session.id === session.id || one.waiting.request.sessionID === session.id)
    .map(askedLine);
  const newest = page.messages.findLast(({ info }) => !undone.has(info.id));
  const own = sessionState(statuses.get(session.id), {
    newest: input.before === undefined ? newest : undefined,
    waiting,
    stalledSinceMs: input.before === undefined ? stalledSince(runtime, instance, session, newest) : undefined,
    nowMs: runtime.clock.now(),
  });
  const elsewhere = own.state === 'interrupted' ? await findOtherProcess(runtime, connected, session, call) : undefined;
  const state = elsewhere === undefined ? own : busyIn(elsewhere);
  const running = statuses.has(session.id) || elsewhere !== undefined;
  const data: TranscriptView = {
    instance: instance.name,
    session: sessionRow(session, state),
    messages: messageRows(page.messages, { running, undone }),
    ...(waiting.length > 0 && { waiting }),
    ...(page.olderCursor !== undefined && { before: page.olderCursor }),
  };
  return { data, text: render(data, runtime.clock.now()) };
}

async function sessionToRead(connected: Connected, query: string | undefined): Promise<Session> {
  if (query !== undefined) return await findSession(connected, query);
  const latest = await latestSession(connected);
  if (latest !== undefined) return latest;
  if (isWholeService(connected)) throw sessionNeeded(connected, 'nothing was read');
  const name = quoteName(connected.instance.name);
  throw new OperationError(
    ({ sessions }) =>
      `${name} has no session in its directory yet; send starts one, ${sessions} shows other sessions of its project.`,
  );
}

/** One message from an offset; for a person's message, the answer to it. */
async function readOne(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  { messageId, offset = 0 }: { readonly messageId: string; readonly offset: number | undefined },
  call: Call,
): Promise<Answer<TranscriptView>> {
  const { api, instance } = connected;
  const [message, statuses, undone] = await Promise.all([
    isMessageId(messageId) ? api.message(session.id, messageId) : undefined,
    api.statuses(session.directory),
    undoneIn(api, session),
  ]);
  if (message === undefined) {
    const next = 'read without message_id shows its newest messages and their ids.';
    throw noSuchMessage(instance, session, messageId, next);
  }
  const running = statuses.has(session.id);
  const rowOf = (isRunning: boolean): Promise<MessageRow> | MessageRow => {
    const options = { running: isRunning, undone, offset };
    return message.info.role === 'user'
      ? answerRow(api, session, message, options)
      : messageRow(message, { ...options, limit: PAGE_CHARS });
  };
  const own = await rowOf(running);
  const elsewhere = own.state === 'interrupted' ? await findOtherProcess(runtime, connected, session, call) : undefined;
  const row = elsewhere === undefined ? own : await rowOf(true);
  const state =
    elsewhere === undefined
      ? sessionState(statuses.get(session.id), { nowMs: runtime.clock.now() })
      : busyIn(elsewhere);
  const data: TranscriptView = { instance: instance.name, session: sessionRow(session, state), messages: [row] };
  return { data, text: render(data, runtime.clock.now()) };
}

/** The whole answer to `message` as one row, however many messages it took. */
async function answerRow(
  api: OpencodeApi,
  session: Session,
  message: Message,
  { running, undone, offset }: RowOptions & { readonly offset: number },
): Promise<MessageRow> {
  const turn = new Transcript(session.id, message.info.id);
  turn.reconcile(await messagesOfTurn(api, session.id, message.info.id));
  const end = endState(turn.assistants.at(-1) ?? {});
  return {
    id: message.info.id,
    role: 'answer to',
    created: new Date(message.info.time.created).toISOString(),
    state: undone.has(message.info.id) ? UNDONE : turn.concluded ? end : running ? 'streaming' : 'interrupted',
    ...cutText(multiLine(turn.text, Number.MAX_SAFE_INTEGER), PAGE_CHARS, offset),
  };
}

function render(data: TranscriptView, nowMs: number): string {
  const lines = [`${quoteName(data.instance)}, session ${renderSession(data.session, nowMs)}`];
  if (data.messages.length === 0) lines.push('(no messages)');
  lines.push(...data.messages.map(renderMessage));
  for (const request of data.waiting ?? [])
    lines.push(`waiting for ${request} (settle it with respond, or in that opencode)`);
  if (data.before !== undefined) lines.push(`(older messages: read again with before ${JSON.stringify(data.before)})`);
  return lines.join('\n');
}
