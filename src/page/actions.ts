import * as z from 'zod';

import type { Settlement } from '../operations/respond/approval.ts';
import type { Asked } from '../operations/respond/asked.ts';
import { chosenAnswers } from '../operations/respond/chosen-answers.ts';
import { respondOnce } from '../operations/respond/respond-once.ts';
import { createSession } from '../operations/sessions/sessions.ts';
import { abortSession } from '../operations/send/abort.ts';
import { send } from '../operations/send/send.ts';
import type { Call, Runtime } from '../operations/runtime.ts';
import type { TurnView } from '../operations/shapes.ts';
import { quoteName, sentence, singleLine } from '../base/plain-text.ts';
import type { Question } from '../opencode/schema.ts';
import { canAllow, labelShown } from './session/ask-view.ts';
import { type PageCaller, PageRefusal, type PageView } from './contract.ts';
import { findPlace, findShown } from './session/find-session.ts';

const MAX_ID_CHARS = 256;
const MAX_MESSAGE_CHARS = 100_000;
const MAX_TEXT_CHARS = 1_000;

const id = z.string().min(1).max(MAX_ID_CHARS);
const place = { instance: z.string().min(1).max(1_000), session: id };

const respondSchema = z.strictObject({
  ...place,
  request: id,
  reply: z.enum(['once', 'reject']).optional(),
  message: z.string().max(MAX_MESSAGE_CHARS).optional(),
  answers: z
    .array(z.array(z.string().max(MAX_MESSAGE_CHARS)).max(100))
    .max(100)
    .optional(),
});
const sendSchema = z.strictObject({
  ...place,
  session: id.nullable(),
  message: z.string().min(1).max(MAX_MESSAGE_CHARS),
  requestId: id,
});
const abortSchema = z.strictObject(place);

/** The answer to the page, and what the record of calls keeps. */
export interface Acted {
  readonly body: object;
  readonly instance: string;
  readonly session: string;
  readonly outcome: string;
}

/** @param body not checked yet */
export type PageAction = (view: PageView, body: unknown, caller: PageCaller, call: Call) => Promise<Acted>;

/** What a person does on the page, by route. */
export const ACTIONS: ReadonlyMap<string, PageAction> = new Map<string, PageAction>([
  ['respond', (view, body, ...rest) => respondHere(view, checked(respondSchema, body), ...rest)],
  ['send', (view, body, ...rest) => sendHere(view, checked(sendSchema, body), ...rest)],
  ['abort', (view, body, ...rest) => abortHere(view, checked(abortSchema, body), ...rest)],
]);

/** @throws {PageRefusal} 400 */
function checked<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const { path = [], message = '' } = parsed.error.issues[0] ?? {};
  throw new PageRefusal(400, `The body does not fit: ${singleLine(`${path.map(String).join('.')}: ${message}`, 200)}`);
}

/** Settles one request as the person who pressed the button. */
async function respondHere(
  view: PageView,
  input: z.infer<typeof respondSchema>,
  caller: PageCaller,
  call: Call,
): Promise<Acted> {
  const { connected, session } = await findPlace(view, input, caller, call);
  const { text, isGone } = await respondOnce(
    view.runtime,
    connected,
    { session, requestId: input.request, settlement: (asked) => settlementOf(asked, input) },
    call.signal,
  );
  return {
    body: { done: !isGone, ...(isGone && { gone: true }), text: sentence(text, MAX_TEXT_CHARS) },
    instance: connected.instance.name,
    session: session.id,
    outcome: isGone ? 'gone' : 'ok',
  };
}

/** @throws {PageRefusal | OperationError} the answer does not fit what waits */
function settlementOf({ waiting }: Asked, { reply, message = '', answers }: z.infer<typeof respondSchema>): Settlement {
  if (waiting.kind === 'permission') {
    if (reply === undefined) throw new PageRefusal(422, 'A permission waits: allow it once, or reject it.');
    if (reply === 'once' && !canAllow(waiting.request))
      throw new PageRefusal(
        422,
        'It is too long to be shown whole here, or has characters that cannot be shown; allow it in that opencode.',
      );
    return { kind: 'permission', reply, ...(reply === 'reject' && message.trim() !== '' && { message }) };
  }
  if (reply === 'reject') return { kind: 'reject' };
  if (answers === undefined) throw new PageRefusal(422, 'A question waits: answer it, or reject it.');
  const { questions } = waiting.request;
  return {
    kind: 'answers',
    answers: chosenAnswers(
      questions,
      answers.map((given, index) => given.map((one) => labelMeant(questions[index], one))),
    ),
  };
}

/** The original of a shown label. @throws {PageRefusal} two labels look alike when shown */
function labelMeant(question: Question['questions'][number] | undefined, given: string): string {
  const shown = (question?.options ?? []).filter(({ label }) => labelShown(label) === given);
  if (shown.length > 1) throw new PageRefusal(422, 'Two of the choices look alike here; answer it in that opencode.');
  return shown[0]?.label ?? given;
}

const NOT_TAKEN = new Map([
  ['busy', 409],
  ['refused', 409],
  ['unknown', 502],
]);

/** New sessions by the request id of their first message, so that a repeated request uses the same session. */
const MADE = new WeakMap<Runtime, Map<string, Promise<string>>>();
const MAX_MADE = 200;

/** Sends a message to a session, or to a new one, once per request id. Does not follow the turn. */
async function sendHere(
  view: PageView,
  { instance: wanted, session, message, requestId }: z.infer<typeof sendSchema>,
  caller: PageCaller,
  call: Call,
): Promise<Acted> {
  const found = session === null ? undefined : await findPlace(view, { instance: wanted, session }, caller, call);
  await view.runtime.fleet.ready();
  const instance = findShown(view, wanted).name;
  const session_id = found?.session.id ?? (await newSession(view, instance, requestId, call));
  const { data } = await send(
    view.runtime,
    { instance, message, session_id, request_id: requestId, async: true },
    call,
  );
  const status = NOT_TAKEN.get(data.outcome);
  const name = quoteName(data.instance);
  if (status !== undefined)
    throw new PageRefusal(status, `${name}: ${sentence(data.reason ?? data.outcome, MAX_TEXT_CHARS)}`);
  return acted(data, `Sent to ${name}.`);
}

async function newSession({ runtime }: PageView, instance: string, requestId: string, call: Call): Promise<string> {
  const made = MADE.get(runtime) ?? new Map<string, Promise<string>>();
  MADE.set(runtime, made);
  const key = `${instance}\0${requestId}`;
  const known = made.get(key);
  if (known !== undefined) return await known;
  const making = createSession(runtime, { instance }, call).then(({ data }) => data.session.id);
  made.set(key, making);
  for (const oldest of [...made.keys()].slice(0, -MAX_MADE)) made.delete(oldest);
  try {
    return await making;
  } catch (error) {
    made.delete(key);
    throw error;
  }
}

/** Stops what runs in a session. */
async function abortHere(
  view: PageView,
  input: z.infer<typeof abortSchema>,
  caller: PageCaller,
  call: Call,
): Promise<Acted> {
  const { connected, session } = await findPlace(view, input, caller, call);
  const answer = await abortSession(view.runtime, { instance: connected.instance.name, session_id: session.id }, call);
  const name = quoteName(answer.data.instance);
  return acted(
    answer.data,
    answer.data.aborted === true ? `Stopped what ran on ${name}.` : `Nothing ran there on ${name}.`,
  );
}

function acted({ instance, session, outcome }: TurnView, text: string): Acted {
  const sessionId = session?.id ?? '';
  return { body: { session: sessionId, text }, instance, session: sessionId, outcome };
}
