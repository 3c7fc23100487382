import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Prompt } from '../../opencode/api.ts';
import type { Session } from '../../opencode/schema.ts';
import { CallOver } from '../../turns/call-limit.ts';
import type { TurnResult } from '../../turns/outcome.ts';
import { resumeTurn, runTurn, type TurnRequest } from '../../turns/turn.ts';
import { abortSession, abortVerified } from './abort.ts';
import { type Answer, OperationError, quoteName } from '../answer.ts';
import { askInTurn } from '../respond/ask-in-turn.ts';
import { remember } from './following.ts';
import { scopeOf } from '../listing/directories.ts';
import { findOtherProcess } from '../sessions/other-process.ts';
import type { JournalEntry } from './request-journal.ts';
import { type Call, connectTo, type Connected, limitOf, type Runtime } from '../runtime.ts';
import { checkChoice, type Choice } from './send-choice.ts';
import { type Several, toSeveral } from './several.ts';
import { findSession, latestSession } from '../sessions/session-query.ts';
import type { TurnView } from '../shapes.ts';
import { turnAnswer } from './turn-view.ts';
import { tellingUndone } from './undone.ts';

export interface SendInput {
  readonly instance: string | readonly string[];
  readonly session_id?: string | undefined;
  readonly message?: string | undefined;
  /** As `when_busy: interrupt`; without a message: only abort. */
  readonly abort?: boolean | undefined;
  readonly when_busy?: 'fail' | 'queue' | 'interrupt' | undefined;
  readonly agent?: string | undefined;
  /** `provider/model`. */
  readonly model?: string | undefined;
  readonly request_id?: string | undefined;
  /** Return as soon as the message is accepted. */
  readonly async?: boolean | undefined;
}

/** Sends a message to a session of one or several instances and follows the turns; aborts what runs there first if asked to. */
export async function send(runtime: Runtime, input: SendInput, call: Call): Promise<Answer<TurnView>> {
  const { instance, message, abort, session_id } = input;
  if (message === undefined) {
    if (abort === true && typeof instance === 'string')
      return await abortSession(runtime, { instance, session_id }, call);
    throw new OperationError('send needs a message, or abort: true with one instance to stop what runs.');
  }
  if (message.trim() === '') throw new OperationError('message is empty; nothing was sent.');
  await runtime.fleet.ready();
  if (typeof instance !== 'string') {
    if (session_id !== undefined)
      throw new OperationError('session_id goes with one instance; nothing was sent. Each has sessions of its own.');
    return await toSeveral(runtime, instance, call, (one, share) =>
      sendOne(runtime, { ...input, message }, one, share),
    );
  }
  return await sendOne(runtime, { ...input, message }, runtime.fleet.resolve(instance), { call });
}

interface Message extends SendInput {
  readonly message: string;
}

interface Checked extends Message, Choice {
  /** What this call has done so far, for the error of one that is over before it sends. */
  readonly done: string[];
}

async function sendOne(
  runtime: Runtime,
  input: Message,
  instance: Connected['instance'],
  several: Several,
): Promise<Answer<TurnView>> {
  const connected = await connectTo(runtime, instance, several.call);
  const checked: Checked = { ...input, ...(await checkChoice(connected, input)), done: ['nothing was sent by it'] };
  return await tellingUndone(
    instance.name,
    () => checked.done.join('; '),
    () => sendChecked(runtime, connected, checked, several),
  );
}

async function sendChecked(
  runtime: Runtime,
  connected: Connected,
  input: Checked,
  { call, maxChars }: Several,
): Promise<Answer<TurnView>> {
  const release = await lockRequest(runtime, connected, input, call);
  try {
    const earlier = await earlierMessage(runtime, connected, input);
    const session = await sessionToDrive(connected, input, earlier);
    // Listings tell what it does there from now on.
    if (session.directory !== connected.directory) runtime.fleet.worksIn(connected, session);
    const interrupts = (input.abort === true || input.when_busy === 'interrupt') && earlier === undefined;
    const aborted = interrupts ? await abortVerified(runtime, connected, session, call) : undefined;
    if (aborted === true) input.done.push(`what ran in session ${session.id} was aborted`);
    const { onWaiting, settled } = askInTurn(runtime, connected, session, call);
    const prepared = { ...input, earlier, onStarted: release, onWaiting };
    const result = await serialized(runtime, connected, session, prepared, call);
    const shown =
      result.outcome.kind === 'cancelled' && input.async === true ? { ...result, outcome: RUNNING } : result;
    return turnAnswer(connected.instance.name, session, shown, {
      nowMs: runtime.clock.now(),
      aborted,
      settled,
      ...(maxChars !== undefined && { maxChars }),
    });
  } finally {
    release();
  }
}

const RUNNING = { kind: 'running' } as const;

async function sessionToDrive(
  connected: Connected,
  { session_id: query, done }: Checked,
  earlier: JournalEntry | undefined,
): Promise<Session> {
  if (earlier !== undefined) {
    const session = await connected.api.session(earlier.sessionId);
    if (session !== undefined) return session;
    throw new OperationError(
      `request_id was used for session ${earlier.sessionId}, which ${quoteName(connected.instance.name)} does not have any more; nothing was sent.`,
    );
  }
  if (query !== undefined) return await findSession(connected, query);
  const latest = await latestSession(connected);
  if (latest !== undefined) return latest;
  const created = await connected.api.createSession(undefined, scopeOf(connected).directory);
  done.push(`session ${created.id} was created for it`);
  return created;
}

/** Calls with one request id go one after the other until the message is seen to run. */
async function lockRequest(
  { lock }: Runtime,
  { instance }: Connected,
  { request_id }: Message,
  call: Call,
): Promise<() => void> {
  if (request_id === undefined) return () => {};
  return await lock.acquire(`request ${instance.name}\0${request_id}`, limitOf(call));
}

async function earlierMessage(
  { journal }: Runtime,
  { instance }: Connected,
  { request_id, message }: Message,
): Promise<JournalEntry | undefined> {
  return request_id === undefined ? undefined : await journal.find(instance.name, request_id, message);
}

interface Prepared extends Checked {
  readonly earlier: JournalEntry | undefined;
  /** The message runs, and another call with its request id finds it. */
  readonly onStarted: () => void;
  readonly onWaiting: TurnRequest['onWaiting'];
}

/** Our sends to one session go one after the other, each until it is seen to run. */
async function serialized(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  prepared: Prepared,
  call: Call,
): Promise<TurnResult> {
  const { api, instance } = connected;
  const limit = limitOf(call);
  const release = await runtime.lock.acquire(session.id, limit);
  const journal = journalling(runtime, instance.name, prepared);
  const follow = new LinkedAbort(call.signal);
  const request: TurnRequest = {
    session,
    text: prepared.message,
    agent: prepared.agentName,
    model: prepared.modelName,
    whenBusy: prepared.when_busy === 'queue' ? 'queue' : 'fail',
    deadlineMs: limit.deadlineMs,
    signal: follow.signal,
    onText: call.onProgress,
    onWaiting: prepared.onWaiting,
    onStarted: () => {
      release();
      prepared.onStarted();
      if (prepared.async === true) follow.abort();
    },
    beforeSend: journal.keep,
    findOtherProcess: async () => {
      const elsewhere = await findOtherProcess(runtime, connected, session, call);
      return elsewhere === undefined
        ? undefined
        : `${elsewhere}, another process with the same sessions, works on it; send there`;
    },
  };
  const deps = { api, clock: runtime.clock };
  try {
    const { earlier, agentName, modelName } = prepared;
    const result =
      earlier === undefined
        ? await runTurn(request, deps)
        : await resumeTurn(
            {
              ...earlier,
              text: prepared.message,
              ...(agentName !== undefined && { agent: agentName }),
              ...(modelName !== undefined && { model: modelName }),
            },
            request,
            deps,
          );
    remember(runtime, instance, session, result);
    return result;
  } catch (error) {
    if (error instanceof CallOver) await journal.forget();
    throw error;
  } finally {
    follow.end();
    release();
  }
}

interface Journalling {
  readonly keep: TurnRequest['beforeSend'];
  /** Nothing was sent: the next call with this request id is the first. What an earlier one may have sent stays. */
  readonly forget: () => Promise<void>;
}

function journalling({ journal }: Runtime, name: string, { request_id, earlier }: Prepared): Journalling {
  if (request_id === undefined) return { keep: undefined, forget: () => Promise.resolve() };
  let kept = false;
  const forget = async (): Promise<void> => {
    if (kept) await journal.forget(name, request_id);
    kept = false;
  };
  const keep = async (prompt: Prompt): Promise<void> => {
    // The session went on without the earlier one, which it does not have; or nothing of ours was sent by the first way.
    kept ||= earlier !== undefined;
    await forget();
    kept = await journal.keep(name, request_id, prompt);
    if (!kept)
      throw new OperationError(
        `Another server is sending the message with request_id ${JSON.stringify(request_id)} just now; nothing was sent by this one. Call again to follow it.`,
      );
  };
  return { keep, forget };
}
