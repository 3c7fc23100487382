import { join } from 'node:path';

import { beforeEach, describe, expect, test } from 'vitest';

import { abortSession } from '../../src/operations/send/abort.ts';
import { RequestJournal } from '../../src/operations/send/request-journal.ts';
import { respond } from '../../src/operations/respond/respond.ts';
import {
  type AskPerson,
  type Call,
  createRuntime,
  type PersonAnswer,
  type Runtime,
} from '../../src/operations/runtime.ts';
import { send, type SendInput } from '../../src/operations/send/send.ts';
import { deleteSession, forkSession, renameSession } from '../../src/operations/sessions/session-changes.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import type { FaultProxy } from '../rig/network/fault-proxy.ts';
import { testCall } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { Stage } from './stage.ts';

/** All requests that change something. */
const EFFECTS = [
  'POST /session',
  'PATCH /session/:id',
  'DELETE /session/:id',
  'POST /session/:id/fork',
  'POST /session/:id/prompt_async',
  'POST /session/:id/abort',
  'POST /permission/:id/reply',
  'POST /question/:id/reply',
  'POST /question/:id/reject',
] as const;

const CALL_MS = 60_000;
const STATUS = '/session/status';
const MESSAGES = /^\/session\/\w+\/message$/;
const SESSIONS = '/session';
const PROMPT = /prompt_async$/;

let fake: FakeOpencode;
let proxy: FaultProxy;
/** The clock of the calls; the fleet uses the system clock. */
let clock: ManualClock;
let runtime: Runtime;

beforeEach(async () => {
  const stage = new Stage();
  ({ fake, proxy } = await stage.add('a', { reply: (text) => (text === 'run' ? undefined : `re: ${text}`) }));
  clock = new ManualClock();
  runtime = createRuntime(stage.fleet, clock, {
    approvals: { approve: 'ask', approvalRules: [] },
    journal: new RequestJournal(join(stage.temp.path, 'requests'), clock),
  });
  await stage.start();
  return stage.close;
});

function call(extra: Partial<Call> = {}): Call {
  return testCall({ deadlineMs: clock.monotonic() + CALL_MS, ...extra });
}

const effects = (): string[] => EFFECTS.flatMap((route) => Array<string>(fake.count(route)).fill(route));
const sentTexts = (): (string | undefined)[] => fake.state.prompts.map(({ body }) => body.parts?.[0]?.text);
const failureOf = (failing: Promise<unknown>): Promise<string> =>
  failing.then(
    () => 'it did not fail',
    (error: Error) => `${error.name}: ${error.message}`,
  );

const ENDS = ['cancelled', 'expired'] as const;
const WHY = { cancelled: 'the call was cancelled', expired: 'the time for this call ran out' };

/** A call, and a function that ends it. */
function endableCall(how: (typeof ENDS)[number]): { readonly one: Call; readonly end: () => Promise<void> } {
  const caller = new AbortController();
  return {
    one: call({ signal: caller.signal }),
    end: async () => (how === 'cancelled' ? caller.abort() : await clock.advance(CALL_MS)),
  };
}

/** Begins a call, and ends it while the answer to its request for `path` is held back. */
async function endWhileReading(
  how: (typeof ENDS)[number],
  path: string | RegExp,
  begin: (call: Call) => Promise<unknown>,
): Promise<string> {
  const match = { method: 'GET', path };
  const before = proxy.count(match);
  proxy.rule(match, { kind: 'hold', gate: 'read' });
  const { one, end } = endableCall(how);
  const failing = failureOf(begin(one));
  await proxy.waitForRequest(match, { nth: before + 1 });
  await end();
  proxy.release('read');
  return await failing;
}

function addBusySession(): string {
  const { id } = fake.addSession();
  fake.state.begin(id, 'run', {});
  fake.state.prompts.splice(0);
  return id;
}

function addWaitingSession(kind: 'permission' | 'question'): void {
  const sessionID = addBusySession();
  if (kind === 'permission') fake.addPermission({ sessionID });
  else fake.addQuestion({ sessionID });
}

const A = { instance: 'a' };
/** The person decides after a while. */
const decideLater =
  (answer: PersonAnswer): AskPerson =>
  async () => {
    await clock.advance(2_000);
    return answer;
  };
const chosen = (decision: string): PersonAnswer => ({ kind: 'accepted', fields: { decision } });

type Begin = (call: Call) => Promise<unknown>;

/** Operations by the end of their error, each with its last request before its effect. */
const CASES: Readonly<Record<string, Readonly<Record<string, readonly [string | RegExp, () => Begin]>>>> = {
  'nothing was sent': {
    'send, status': [STATUS, () => sendTo({ message: 'x' })],
    'send, messages': [MESSAGES, () => sendTo({ message: 'x' })],
    'send, async': [STATUS, () => sendTo({ message: 'x', async: true })],
    'send, queue': [STATUS, () => sendTo({ message: 'x', when_busy: 'queue' })],
    'send, request_id': [MESSAGES, () => sendTo({ message: 'x', request_id: 'r' })],
    'send, to a new session': [SESSIONS, () => (one) => send(runtime, { ...A, message: 'x' }, one)],
    'send, interrupt': [STATUS, () => sendTo({ message: 'x', when_busy: 'interrupt' }, addBusySession())],
  },
  'nothing was aborted': {
    abort_session: [STATUS, () => onSession((session) => [abortSession, session], addBusySession())],
  },
  'nothing was answered': {
    'respond, once': [MESSAGES, () => respondTo('permission', { reply: 'once' })],
    'respond, reject': [MESSAGES, () => respondTo('permission', { reply: 'reject' })],
    'respond, always by the person': [MESSAGES, () => respondTo('permission', {}, chosen('always'))],
    'respond, once by the person': [MESSAGES, () => respondTo('permission', {}, chosen('once'))],
    'respond, declined by the person': [
      MESSAGES,
      () => respondTo('permission', { reply: 'once' }, { kind: 'declined' }),
    ],
    'respond, answers': [MESSAGES, () => respondTo('question', { answers: [['Yes']] })],
    'respond, reject of a question': [MESSAGES, () => respondTo('question', { reply: 'reject' })],
  },
  'nothing was forked': { fork_session: [MESSAGES, () => onSession((session) => [forkSession, session])] },
  'nothing was renamed': {
    rename_session: [STATUS, () => onSession((session) => [renameSession, { ...session, title: 'new' }])],
  },
  'nothing was deleted': { delete_session: [STATUS, () => onSession((session) => [deleteSession, session])] },
};
const ALL = Object.entries(CASES).flatMap(([undone, cases]) =>
  Object.entries(cases).map(([name, [path, begin]]) => ({ name, undone, path, begin })),
);

function sendTo(input: Omit<SendInput, 'instance'>, session_id = fake.addSession().id): Begin {
  return (one) => send(runtime, { ...A, session_id, ...input }, one);
}

function respondTo(
  kind: 'permission' | 'question',
  input: Omit<Parameters<typeof respond>[1], 'instance'>,
  decision?: PersonAnswer,
): Begin {
  addWaitingSession(kind);
  return (one) =>
    respond(
      runtime,
      { ...A, ...input },
      { ...one, ...(decision !== undefined && { askPerson: decideLater(decision) }) },
    );
}

type OnSession = { readonly instance: string; readonly session_id: string };

function onSession<Input>(
  how: (session: OnSession) => [(runtime: Runtime, input: Input, call: Call) => Promise<unknown>, Input],
  session_id = fake.addSession({ title: 'work' }).id,
): Begin {
  const [operation, input] = how({ ...A, session_id });
  return (one) => operation(runtime, input, one);
}

test('every call takes effect if it is not over', async () => {
  for (const { name, begin } of ALL) {
    const before = effects().length;
    const done = failureOf(begin()(call()));
    await until(`the effect of ${name}`, () => effects().length > before);
    // The rest of the call may time out.
    await clock.advance(CALL_MS);
    await done;
  }
});

describe.each(ENDS)('a call that is %s before its effect', (how) => {
  test.each(ALL)('$name: does nothing, and says so', async ({ undone, path, begin }) => {
    const message = await endWhileReading(how, path, begin());
    expect(message).toMatch(new RegExp(`^OperationError: a: ${WHY[how]}, and ${undone}`));
    expect(effects()).toEqual([]);
  });

  test('create_session: does nothing, and says so', async () => {
    const message = await endWhileReading(how, '/path', (one) => createSession(runtime, A, one));
    expect(message).toMatch(/no session was created|cancelled; nothing was done/);
    expect(effects()).toEqual([]);
  });

  test('send to several instances: each result says that nothing was sent', async () => {
    fake.addSession();
    const answer = endWhileReading(how, STATUS, async (one) => {
      const { data } = await send(runtime, { instance: ['a'], message: 'x' }, one);
      throw new Error(JSON.stringify(data.turns));
    });
    expect(await answer).toMatch(new RegExp(`"outcome":"error","reason":"a: ${WHY[how]}, and nothing was sent`));
    expect(effects()).toEqual([]);
  });

  test('send with a request_id: a later call with the same id sends the same message', async () => {
    const { id: session_id } = fake.addSession();
    const input = { ...A, session_id, message: 'x', request_id: 'r' };
    // The journal entry is on disk when the call ends.
    const { journal } = runtime;
    const { one, end } = endableCall(how);
    const claim = journal.claim.bind(journal);
    journal.claim = async (...entry) => {
      const kept = await claim(...entry);
      await end();
      return kept;
    };
    expect(await failureOf(send(runtime, input, one))).toContain('nothing was sent');
    journal.claim = claim;
    expect((await send(runtime, input, call())).data).toMatchObject({ outcome: 'completed', text: 're: x' });
    const repeated = send(runtime, input, call({ deadlineMs: Number.POSITIVE_INFINITY }));
    let isReported = false;
    void repeated.then(() => (isReported = true));
    await until('the turn to be reported once more', () => clock.advance(5_000).then(() => isReported));
    expect((await repeated).data.message_id).toBe(fake.state.prompts[0]?.body.messageID);
    expect(sentTexts()).toEqual(['x']);
  });

  test('send reports an abort or a new session that it made before it ended', async () => {
    const session_id = addBusySession();
    const interrupt = await endWhileReading(how, MESSAGES, (one) =>
      send(runtime, { ...A, session_id, message: 'x', abort: true }, one),
    );
    expect(interrupt).toContain(`nothing was sent by this call; what ran in session ${session_id} was aborted`);
    fake.state.removeSession(session_id);
    const removeRule = proxy.rule({ method: 'GET', path: MESSAGES }, { kind: 'hold', gate: 'again' });
    const { one, end } = endableCall(how);
    const failing = failureOf(send(runtime, { ...A, message: 'x' }, one));
    await until('the session to be made', () => fake.state.sessions.size === 1);
    await proxy.waitForRequest({ path: new RegExp(`${[...fake.state.sessions.keys()].join('')}/message`) });
    await end();
    removeRule();
    proxy.release('again');
    expect(await failing).toMatch(/nothing was sent by this call; session ses_\w+ was created for it/);
    expect(sentTexts()).toEqual([]);
  });

  test('does nothing if it waits for a session that a hanging send holds, and the next send is sent', async () => {
    const { id: session_id } = fake.addSession();
    proxy.rule({ path: PROMPT }, { kind: 'hold', gate: 'prompt' }, 1);
    const first = send(
      runtime,
      { ...A, session_id, message: 'first' },
      call({ deadlineMs: clock.monotonic() + 600_000 }),
    );
    await proxy.waitForRequest({ path: PROMPT });
    const { one, end } = endableCall(how);
    const waiting = [
      send(runtime, { ...A, session_id, message: 'second' }, one),
      send(runtime, { ...A, session_id, message: 'third', request_id: 'r' }, one),
      deleteSession(runtime, { ...A, session_id }, one),
    ].map(failureOf);
    await until('the three calls to wait', () => clock.due(CALL_MS) === waiting.length);
    // Setting the system clock back gives a call no extra time.
    clock.step(-3_600_000);
    await end();
    const next = send(runtime, { ...A, session_id, message: 'last' }, call());
    expect(await Promise.all(waiting)).toEqual([
      expect.stringContaining('nothing was sent'),
      expect.stringContaining('nothing was sent'),
      `OperationError: a: ${WHY[how]}, and nothing was deleted. Call again if it is still wanted.`,
    ]);
    proxy.release('prompt');
    expect((await first).data.text).toBe('re: first');
    expect((await next).data.text).toBe('re: last');
    expect(sentTexts()).toEqual(['first', 'last']);
    expect(fake.count('DELETE /session/:id')).toBe(0);
  });
});

describe('a call that is cancelled once something was sent', () => {
  test('send: the message is delivered, and the result is running', async () => {
    const { id: session_id } = fake.addSession();
    const caller = new AbortController();
    proxy.rule({ path: PROMPT }, { kind: 'hold', gate: 'prompt' });
    const sending = send(runtime, { ...A, session_id, message: 'run' }, call({ signal: caller.signal }));
    await proxy.waitForRequest({ path: PROMPT });
    caller.abort();
    proxy.release('prompt');
    expect((await sending).data).toMatchObject({ outcome: 'running', message_id: expect.any(String) as string });
    expect(sentTexts()).toEqual(['run']);
  });

  test.each([
    ['rename_session', 'PATCH', () => onSession((session) => [renameSession, { ...session, title: 'new' }])],
    ['fork_session', 'POST', () => onSession((session) => [forkSession, session])],
    ['delete_session', 'DELETE', () => onSession((session) => [deleteSession, session])],
  ] as const)('%s: the effect is reported', async (_, method, begin) => {
    const caller = new AbortController();
    proxy.rule({ method }, { kind: 'hold', gate: 'change' });
    const changing = begin()(call({ signal: caller.signal }));
    await proxy.waitForRequest({ method });
    caller.abort();
    proxy.release('change');
    expect(await changing).toMatchObject({ data: { session: expect.any(Object) as object } });
  });
});
