import { AdvisedError, messageIn } from '../../model/advice.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Session } from '../../opencode/schema.ts';
import type { TurnResult } from '../../turns/outcome.ts';
import { resumeTurn, runTurn, type TurnRequest } from '../../turns/turn.ts';
import { abortSession, abortVerified } from './abort.ts';
import { type Answer, NotSentError, OperationError, quoteName } from '../answer.ts';
import { askInTurn } from '../respond/ask-in-turn.ts';
import { madeSession } from './change.ts';
import { followRequest, remember, whileMarked } from './following.ts';
import { holdSession } from './hold-session.ts';
import { isWholeService, scopeOf, sessionNeeded } from '../listing/directories.ts';
import { findOtherProcess, notifyOtherTerminals } from '../sessions/other-process.ts';
import { type KeptRequest, type JournalEntry, type RequestKey, requestKey } from './request-journal.ts';
import { begunOn } from './resume.ts';
import { type Call, connectTo, type Connected, limitOf, type Runtime } from '../runtime.ts';
import { checkChoice, type Choice } from './send-choice.ts';
import { type Several, toSeveral } from './several.ts';
import { findSession, latestSession } from '../sessions/session-query.ts';
import type { TurnView } from '../shapes.ts';
import { turnAnswer } from './turn-view.ts';
import { whyUndone } from './undone.ts';

export interface SendInput {
  readonly instance: string | readonly string[];
  readonly session_id?: string | undefined;
  readonly message?: string | undefined;
  /** The same as `when_busy: interrupt`; without a message, only aborts. */
  readonly abort?: boolean | undefined;
  readonly when_busy?: 'fail' | 'queue' | 'interrupt' | undefined;
  readonly agent?: string | undefined;
  /** `provider/model`. */
  readonly model?: string | undefined;
  readonly request_id?: string | undefined;
  /** Return as soon as the message is accepted. */
  readonly async?: boolean | undefined;
}

/** Sends a message to one session of each instance and follows the turns; may first abort what runs there. */
export async function send(runtime: Runtime, input: SendInput, call: Call): Promise<Answer<TurnView>> {
  const { instance, message, abort, session_id } = input;
  if (message === undefined) {
    if (abort === true && typeof instance === 'string')
      return await abortSession(runtime, { instance, session_id }, call);
    throw new NotSentError(
      'send needs a message, or abort: true with one instance to stop what runs; nothing was sent.',
    );
  }
  if (message.trim() === '') throw new NotSentError('message is empty; nothing was sent.');
  await runtime.fleet.ready();
  if (typeof instance !== 'string') {
    if (session_id !== undefined)
      throw new NotSentError('session_id goes with one instance; nothing was sent. Each has sessions of its own.');
    return await reportUnsent(instance.join(', '), NOTHING, () =>
      toSeveral(runtime, instance, call, (one, share) => sendOne(runtime, { ...input, message }, one, share)),
    );
  }
  const found = await reportUnsent(instance, NOTHING, async () => runtime.fleet.resolve(instance));
  return await sendOne(runtime, { ...input, message }, found, { call });
}

const NOTHING: readonly string[] = ['nothing was sent by this call'];

interface Message extends SendInput {
  readonly message: string;
}

interface Checked extends Message {
  readonly choice: Choice;
  /** What the call has done so far, for its error if it ends before it sends. */
  readonly done: string[];
}

async function sendOne(
  runtime: Runtime,
  input: Message,
  instance: Connected['instance'],
  several: Several,
): Promise<Answer<TurnView>> {
  const done = [...NOTHING];
  const answer = await reportUnsent(instance.name, done, async () => {
    const connected = await connectTo(runtime, instance, several.call);
    const choice = await checkChoice(runtime, connected, input, several.call);
    return await sendChecked(runtime, connected, { ...input, choice, done }, several);
  });
  return answer();
}

/** Runs the steps before sending: their errors say that nothing was sent. @throws {NotSentError} */
async function reportUnsent<T>(instance: string, done: readonly string[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const undone = done.join('; ');
    const why = whyUndone(instance, error, undone);
    if (why === undefined && !(error instanceof AdvisedError)) throw error;
    throw new NotSentError(why ?? ((words) => `${messageIn(words, error)} (${undone})`), { cause: error });
  }
}

async function sendChecked(
  runtime: Runtime,
  connected: Connected,
  input: Checked,
  { call, maxChars }: Several,
): Promise<() => Answer<TurnView>> {
  const { request_id = call.requestId, session_id } = input;
  const named = session_id === undefined ? undefined : await findSession(connected, session_id);
  const key = request_id === undefined ? undefined : requestKey(connected, request_id, named?.id);
  const release = await lockRequest(runtime, key, call);
  try {
    const found = key && (await runtime.journal.find(key, input.message));
    const request = key && found && { key, found };
    const earlier = found?.entry;
    const session = await sessionToDrive(connected, input, named, earlier);
    // Listings include that directory from now on.
    if (session.directory !== connected.directory) runtime.fleet.worksIn(connected, session);
    const interrupts = (input.abort === true || input.when_busy === 'interrupt') && earlier === undefined;
    const aborted = interrupts ? await abortVerified(runtime, connected, session, call) : undefined;
    if (aborted === true) input.done.push(`what ran in session ${session.id} was aborted`);
    const { onWaiting, settled } = askInTurn(runtime, connected, session, call);
    let notifying: Promise<readonly string[]> | undefined;
    const onStarted = (): void => {
      release();
      notifying = notifyOtherTerminals(runtime, connected, session, call);
    };
    const prepared = { ...input, request, onStarted, onWaiting };
    const result = await serialized(runtime, connected, session, prepared, call);
    // A hanging opencode must not delay the answer.
    const alsoOpenIn = await Promise.race([notifying, runtime.clock.sleep(OTHERS_MS).then(() => undefined)]);
    const shown =
      result.outcome.kind === 'cancelled' && input.async === true ? { ...result, outcome: RUNNING } : result;
    return () => {
      const answer = turnAnswer(connected.instance.name, session, shown, {
        runtime,
        aborted,
        settled,
        alsoOpenIn,
        ...(maxChars !== undefined && { maxChars }),
      });
      return connected.dialect === 'opencode-1' ? answer : withKeptChoice(answer, input.choice);
    };
  } finally {
    release();
  }
}

/** In OpenCode 2 a message's agent and model become the session's. */
function withKeptChoice(answer: Answer<TurnView>, { agent, model }: Choice): Answer<TurnView> {
  const kept = [
    ...(agent === undefined ? [] : [`agent ${quoteName(agent)}`]),
    ...(model === undefined ? [] : [`model ${quoteName(`${model.providerID}/${model.modelID}`)}`]),
  ];
  if (kept.length === 0) return answer;
  const stays = `The session keeps ${kept.join(' and ')} from now on, in its terminal too.`;
  const { next } = answer.data;
  return {
    data: { ...answer.data, next: next === undefined ? stays : `${next} ${stays}` },
    text: `${answer.text}\n${stays}`,
  };
}

const RUNNING = { kind: 'running' } as const;

/** Other opencodes of the machine are asked when the turn begins, and answer in milliseconds. */
const OTHERS_MS = 1_000;

async function sessionToDrive(
  connected: Connected,
  { done }: Checked,
  named: Session | undefined,
  earlier: JournalEntry | undefined,
): Promise<Session> {
  if (named !== undefined) return named;
  if (earlier !== undefined) {
    const session = await connected.api.session(earlier.sessionId);
    if (session !== undefined) return session;
    throw new OperationError(
      ({ messageKey }) =>
        `${messageKey} was used for session ${earlier.sessionId}, which ${quoteName(connected.instance.name)} does not have any more.`,
    );
  }
  const latest = await latestSession(connected);
  if (latest !== undefined) return latest;
  if (isWholeService(connected)) throw sessionNeeded(connected);
  const making = connected.api.createSession(undefined, scopeOf(connected).directory);
  const created = await madeSession(quoteName(connected.instance.name), making);
  done.push(`session ${created.id} was created for it`);
  return created;
}

/** Calls with the same request id run one at a time, until the message is seen to run. */
async function lockRequest({ lock }: Runtime, key: RequestKey | undefined, call: Call): Promise<() => void> {
  if (key === undefined) return () => {};
  return await lock.acquire(`request ${key.requestId}\0${key.identities[0]}`, limitOf(call));
}

interface Prepared extends Checked {
  readonly request: { readonly key: RequestKey; readonly found: KeptRequest } | undefined;
  readonly onStarted: () => void;
  readonly onWaiting: TurnRequest['onWaiting'];
}

/** Our sends to one session run one at a time, each until its turn is seen to run. */
async function serialized(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  prepared: Prepared,
  call: Call,
): Promise<TurnResult> {
  const { api, instance } = connected;
  const release = await holdSession(runtime, connected, session, call);
  const follow = new LinkedAbort(call.signal);
  const claim = claimer(runtime, prepared);
  const request: TurnRequest = {
    ...followRequest(instance, session, call),
    signal: follow.signal,
    text: prepared.message,
    ...prepared.choice,
    whenBusy: prepared.when_busy === 'queue' ? 'queue' : 'fail',
    onWaiting: prepared.onWaiting,
    onStarted: () => {
      release();
      prepared.onStarted();
      if (prepared.async === true) follow.abort();
    },
    beforeSend: async (prompt) => {
      await claim?.(prompt);
      await call.onBegun?.(begunOn(connected, session, prompt.messageId));
    },
    findOtherProcess: async () => {
      const elsewhere = await findOtherProcess(runtime, connected, session, call);
      return elsewhere === undefined
        ? undefined
        : `${elsewhere}, another opencode with the same sessions, works on this one; send there`;
    },
  };
  const deps = { api, clock: runtime.clock };
  const earlier = prepared.request?.found.entry;
  try {
    return await whileMarked(runtime, session, async () => {
      if (earlier !== undefined) await call.onBegun?.(begunOn(connected, session, earlier.messageId));
      const result =
        earlier === undefined
          ? await runTurn(request, deps)
          : await resumeTurn({ ...earlier, text: prepared.message, ...prepared.choice }, request, deps);
      remember(runtime, instance, session, result);
      return result;
    });
  } finally {
    follow.end();
    release();
  }
}

/** Undefined without a request id. */
function claimer({ journal }: Runtime, { request }: Prepared): TurnRequest['beforeSend'] {
  if (request === undefined) return undefined;
  const { key } = request;
  let { found } = request;
  return async (prompt) => {
    const claimed = await journal.claim(key, found, prompt);
    if (claimed === undefined)
      throw new OperationError(
        ({ messageKey, again }) =>
          `Another process is sending the message with ${messageKey} ${JSON.stringify(key.requestId)} now; ${again} to follow it.`,
      );
    found = claimed;
  };
}
