import type { Message, Session } from '../../opencode/schema.ts';
import { singleLine } from '../../base/plain-text.ts';
import { abortVerified } from '../send/abort.ts';
import { madeSession, makeChange, unseenLine } from '../send/change.ts';
import { holdSession } from '../send/hold-session.ts';
import { type Answer, OperationError, quoteName, sessionRef } from '../answer.ts';
import type { DeletedSession } from '../inspect/inspect-shapes.ts';
import { findOtherProcess } from './other-process.ts';
import { type Call, type CallSpan, type Connected, type Runtime } from '../runtime.ts';
import { connectToSession, isMessageId, noSuchMessage } from './session-query.ts';
import { renderSession, sessionRow } from './sessions.ts';
import type { CreatedSession } from '../shapes.ts';
import { reportUndone } from '../send/undone.ts';

export interface SessionInput {
  readonly instance: string;
  readonly session_id: string;
}

const MAX_TITLE = 200;
/** opencode's titles until it makes one from the first message. */
const DEFAULT_TITLE = /^(?:New|Child) session - \d{4}-\d\d-\d\dT[\d:.]+Z$/;
/** Levels of sub-agents. */
const MAX_DEPTH = 5;

/**
 * A new session with a copy of the messages so far, or of those before one message. Leaves out an unfinished turn: opencode
 * would copy its half answer, which would then look interrupted for ever.
 */
export async function forkSession(
  runtime: Runtime,
  input: SessionInput & { readonly message_id?: string | undefined },
  call: Call,
): Promise<Answer<CreatedSession>> {
  const { connected, session: source } = await connectToSession(runtime, input, call);
  const before = await forkPoint(connected, source, input.message_id);
  const name = quoteName(connected.instance.name);
  const fork = await reportUndone(connected.instance.name, 'nothing was forked', () =>
    madeSession(name, connected.api.fork(source.id, before.id)),
  );
  const session = sessionRow(fork, { state: 'idle' });
  const what = before.id === undefined ? 'all of it' : `the messages before ${before.id}`;
  const why = before.running ? ', whose turn still runs' : '';
  return {
    data: { instance: connected.instance.name, session },
    text: `Forked session ${source.id} on ${name}, with ${what}${why}: ${renderSession(session, runtime.clock.now())}`,
  };
}

async function forkPoint(
  { api, instance }: Connected,
  session: Session,
  messageId: string | undefined,
): Promise<{ readonly id?: string; readonly running?: true }> {
  if (messageId !== undefined) {
    const message = isMessageId(messageId) ? await api.message(session.id, messageId) : undefined;
    if (message !== undefined) return { id: message.info.id };
    // opencode would copy everything.
    const next = 'nothing was forked. read shows its messages and their ids.';
    throw noSuchMessage(instance, session, messageId, next);
  }
  const [statuses, { messages }] = await Promise.all([
    api.statuses(session.directory),
    api.messages(session.id, { limit: 1 }),
  ]);
  const newest = messages.at(-1);
  if (newest === undefined || !(statuses.has(session.id) || isUnanswered(newest))) return {};
  return { id: newest.info.role === 'user' ? newest.info.id : newest.info.parentID, running: true };
}

/** Its turn is about to start; the status shows it up to a second later. */
function isUnanswered({ info }: Message): boolean {
  return info.role === 'user';
}

/** Renames a session and reads the title back. */
export async function renameSession(
  runtime: Runtime,
  input: SessionInput & { readonly title: string },
  call: Call,
): Promise<Answer<CreatedSession>> {
  const title = singleLine(input.title, MAX_TITLE).trim();
  if (title === '') throw new OperationError('title is empty; nothing was renamed.');
  const { connected, session } = await connectToSession(runtime, input, call);
  const { api, instance } = connected;
  const name = quoteName(instance.name);
  const statuses = await api.statuses(session.directory);
  if (DEFAULT_TITLE.test(session.title) && statuses.has(session.id)) {
    throw new OperationError(
      `Session ${session.id} of ${name} is in its first turn, after which opencode names it and would overwrite the title. Nothing was renamed; do it once the session has a title or the turn has ended.`,
    );
  }
  let now: Session | undefined = session;
  const made = await reportUndone(instance.name, 'nothing was renamed', () =>
    makeChange(runtime, {
      make: () => api.rename(session.id, title),
      shows: async () => (now = await api.session(session.id))?.title === title,
      signal: call.signal,
    }),
  );
  if (made.unseen !== undefined || now === undefined) {
    const still = `session ${session.id} is ${now === undefined ? 'gone' : `called ${JSON.stringify(singleLine(now.title, 100))}`}`;
    throw new OperationError(`Rename failed: ${unseenLine(name, made, still)}. See list_sessions.`);
  }
  const row = sessionRow(now, { state: statuses.has(session.id) ? 'busy' : 'idle' });
  return {
    data: { instance: instance.name, session: row },
    text: `Renamed on ${name}, from ${JSON.stringify(singleLine(session.title, 100))}: ${renderSession(row, runtime.clock.now())}`,
  };
}

/** Deletes a session and its sub-agents', unless something runs in them: it would go on after opencode has deleted their messages. */
export async function deleteSession(
  runtime: Runtime,
  input: SessionInput,
  call: Call,
): Promise<Answer<DeletedSession>> {
  const { connected, session } = await connectToSession(runtime, input, call);
  await reportUndone(connected.instance.name, 'nothing was deleted', () =>
    deleteIdle(runtime, connected, session, call),
  );
  const data: DeletedSession = {
    instance: connected.instance.name,
    session: sessionRef(session),
    deleted: true,
  };
  const name = quoteName(data.instance);
  return {
    data,
    text: `Deleted on ${name}: session ${session.id} ${JSON.stringify(data.session.title)} and its sub-agents' sessions (deleted: true; this cannot be undone).`,
  };
}

async function deleteIdle(runtime: Runtime, connected: Connected, session: Session, call: CallSpan): Promise<void> {
  // Waits until a send of ours that has begun is seen to run.
  const release = await holdSession(runtime, connected, session, call);
  try {
    await assertIdle(runtime, connected, session, call);
    await remove(runtime, connected, session, call);
  } finally {
    release();
  }
}

async function assertIdle(runtime: Runtime, connected: Connected, session: Session, call: CallSpan): Promise<void> {
  const { api, instance } = connected;
  const name = quoteName(instance.name);
  const running = [...(await api.statuses(session.directory)).keys()];
  for (const id of running) {
    if (!(await belongsTo(connected, id, session.id))) continue;
    const what = id === session.id ? `Session ${id}` : `Sub-agent session ${id} of session ${session.id}`;
    throw new OperationError(`${what} on ${name} is running; nothing was deleted. Call abort_session first.`);
  }
  const elsewhere = await findOtherProcess(runtime, connected, session, call);
  if (elsewhere === undefined) return;
  throw new OperationError(
    `Session ${session.id} runs in ${elsewhere}, which shares its sessions with ${name}; nothing was deleted. Call abort_session there first.`,
  );
}

/** Whether `id` is the session or one of its sub-agents'. A session that cannot be read is an error here: nothing is deleted. */
async function belongsTo({ api }: Connected, id: string, sessionId: string): Promise<boolean> {
  let at: string | undefined = id;
  for (let depth = 0; at !== undefined && depth <= MAX_DEPTH; depth++) {
    if (at === sessionId) return true;
    at = (await api.session(at))?.parentID;
  }
  return false;
}

/** opencode answers true in any case: checks that the session is gone, and aborts what was started in it meanwhile. */
async function remove(runtime: Runtime, connected: Connected, session: Session, call: CallSpan): Promise<void> {
  const { api, instance } = connected;
  const made = await makeChange(runtime, {
    make: () => api.remove(session.id),
    shows: async () => (await api.session(session.id)) === undefined,
    signal: call.signal,
  });
  if (made.unseen !== undefined) {
    const line = unseenLine(quoteName(instance.name), made, `session ${session.id} is still there`);
    throw new OperationError(`Delete failed: ${line}. See list_sessions, and call again if it is still there.`);
  }
  if (!(await api.statuses(session.directory)).has(session.id)) return;
  await reportUndone(
    instance.name,
    `session ${session.id} is deleted, but a turn that began meanwhile was not aborted`,
    () => abortVerified(runtime, connected, session, call),
    'End it in that opencode.',
  );
}
