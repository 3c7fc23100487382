import { LinkedAbort } from '../linked-abort.ts';
import type { Session } from '../opencode/schema.ts';
import type { TurnResult } from '../turns/outcome.ts';
import { resumeTurn, runTurn, type TurnRequest } from '../turns/turn.ts';
import { abortSession, abortVerified } from './abort.ts';
import { type Answer, OperationError } from './answer.ts';
import { followUntil, remember } from './following.ts';
import { findOwner } from './owner.ts';
import type { JournalEntry } from './request-journal.ts';
import { type Call, connectTo, type Connected, type Runtime } from './runtime.ts';
import { checkChoice, type Choice } from './send-choice.ts';
import { type Several, toSeveral } from './several.ts';
import { findSession, latestSession } from './session-query.ts';
import type { TurnView } from './shapes.ts';
import { turnAnswer } from './turn-view.ts';

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
  await runtime.directory.ready();
  if (typeof instance !== 'string') {
    if (session_id !== undefined)
      throw new OperationError('session_id goes with one instance; nothing was sent. Each has sessions of its own.');
    return await toSeveral(runtime, instance, call, (one, share) =>
      sendOne(runtime, { ...input, message }, one, share),
    );
  }
  return await sendOne(runtime, { ...input, message }, runtime.directory.resolve(instance), { call });
}

interface Message extends SendInput {
  readonly message: string;
}

async function sendOne(
  runtime: Runtime,
  input: Message,
  instance: Connected['instance'],
  { call, maxChars }: Several,
): Promise<Answer<TurnView>> {
  const connected = await connectTo(runtime, instance, call.signal);
  const choice = await checkChoice(connected, input);
  const release = await lockRequest(runtime, connected, input);
  try {
    const earlier = await earlierMessage(runtime, connected, input);
    const session = await sessionToDrive(connected, input.session_id, earlier);
    // Listings tell what it does there from now on.
    if (session.directory !== connected.directory) runtime.directory.worksIn(connected, session.directory);
    const interrupts = (input.abort === true || input.when_busy === 'interrupt') && earlier === undefined;
    const aborted = interrupts ? await abortVerified(runtime, connected, session, call.signal) : undefined;
    const result = await serialized(
      runtime,
      connected,
      session,
      { ...input, ...choice, earlier, onSent: release },
      call,
    );
    const shown =
      result.outcome.kind === 'cancelled' && input.async === true ? { ...result, outcome: RUNNING } : result;
    return turnAnswer(connected.instance.name, session, shown, {
      nowMs: runtime.clock.now(),
      aborted,
      ...(maxChars !== undefined && { maxChars }),
    });
  } finally {
    release();
  }
}

const RUNNING = { kind: 'running' } as const;

async function sessionToDrive(
  connected: Connected,
  query: string | undefined,
  earlier: JournalEntry | undefined,
): Promise<Session> {
  if (earlier !== undefined) {
    const session = await connected.api.session(earlier.sessionId);
    if (session !== undefined) return session;
    throw new OperationError(
      `request_id was used for session ${earlier.sessionId}, which ${connected.instance.name} does not have any more; nothing was sent.`,
    );
  }
  if (query !== undefined) return await findSession(connected, query);
  return (await latestSession(connected)) ?? (await connected.api.createSession());
}

/** Calls with one request id go one after the other until the message is sent. */
async function lockRequest({ lock }: Runtime, { instance }: Connected, { request_id }: Message): Promise<() => void> {
  return request_id === undefined ? () => {} : await lock.acquire(`request ${instance.name}\0${request_id}`);
}

async function earlierMessage(
  { journal }: Runtime,
  { instance }: Connected,
  { request_id, message }: Message,
): Promise<JournalEntry | undefined> {
  return request_id === undefined ? undefined : await journal.find(instance.name, request_id, message);
}

interface Prepared extends Message, Choice {
  readonly earlier: JournalEntry | undefined;
  /** The message is about to be sent, and another call with its request id finds it. */
  readonly onSent: () => void;
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
  const release = await runtime.lock.acquire(session.id);
  const follow = new LinkedAbort(call.signal);
  const request: TurnRequest = {
    session,
    text: prepared.message,
    agent: prepared.agentName,
    model: prepared.modelName,
    whenBusy: prepared.when_busy === 'queue' ? 'queue' : 'fail',
    deadlineMs: followUntil(call),
    signal: follow.signal,
    onText: call.onProgress,
    onStarted: () => {
      release();
      if (prepared.async === true) follow.abort();
    },
    beforeSend: journalling(runtime, instance.name, prepared),
    findOwner: async () => {
      const owner = await findOwner(runtime, connected, session, follow.signal);
      return owner === undefined
        ? undefined
        : `${owner}, another process with the same sessions, works on it; send there`;
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
  } finally {
    follow.end();
    release();
  }
}

function journalling(
  { journal }: Runtime,
  name: string,
  { request_id, earlier, onSent }: Prepared,
): TurnRequest['beforeSend'] {
  if (request_id === undefined) return undefined;
  let isOurs = earlier !== undefined;
  return async (prompt) => {
    // The session went on without the earlier one, which it does not have; or nothing of ours was sent by the first way.
    if (isOurs) await journal.forget(name, request_id);
    isOurs = true;
    if (!(await journal.keep(name, request_id, prompt)))
      throw new OperationError(
        `Another server is sending the message with request_id ${JSON.stringify(request_id)} just now; nothing was sent by this one. Call again to follow it.`,
      );
    onSent();
  };
}
