import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { LiveFleet } from '../../src/fleet/fleet.ts';
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
import { candidate } from '../fleet/candidates.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { TestSource } from '../fleet/world.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { testCall, testFleet } from '../rig/runtime.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

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

let temp: TempDir;
let fake: FakeOpencode;
let proxy: FaultProxy;
let fleet: LiveFleet;
/** Of the calls; the fleet has the real one. */
let clock: ManualClock;
let runtime: Runtime;

beforeEach(async () => {
  temp = tempDir('call-over');
  fake = await startFakeOpencode({ reply: (text) => (text === 'run' ? undefined : `re: ${text}`) });
  proxy = await startFaultProxy(fake.url);
  const source = new TestSource();
  source.candidates.set('a', candidate({ key: 'a', url: proxy.url, claims: { name: 'a' } }));
  fleet = testFleet(source);
  clock = new ManualClock();
  runtime = createRuntime(fleet, clock, {
    approvals: { approve: 'ask', approvalRules: [] },
    journal: new RequestJournal(join(temp.path, 'requests'), clock),
  });
  fleet.start();
  await fleet.ready();
});
afterEach(async () => {
  await fleet.close();
  await proxy.close();
  await fake.close();
  await temp.close();
});

function call(extra: Partial<Call> = {}): Call {
  return testCall({ deadlineMs: clock.monotonic() + CALL_MS, ...extra });
}

const effects = (): string[] => EFFECTS.flatMap((route) => Array<string>(fake.count(route)).fill(route));
const said = (): (string | undefined)[] => fake.state.prompts.map(({ body }) => body.parts?.[0]?.text);
const reason = (failing: Promise<unknown>): Promise<string> =>
  failing.then(
    () => 'it did not fail',
    (error: Error) => `${error.name}: ${error.message}`,
  );

const ENDS = ['cancelled', 'expired'] as const;
const WHY = { cancelled: 'the call was cancelled', expired: 'the time for this call ran out' };

/** Begins a call, and ends it while the answer to its request for `path` is held back. */
async function endWhileReading(
  how: (typeof ENDS)[number],
  path: string | RegExp,
  begin: (call: Call) => Promise<unknown>,
): Promise<string> {
  const match = { method: 'GET', path };
  const before = proxy.count(match);
  const caller = new AbortController();
  proxy.rule(match, { kind: 'hold', gate: 'read' });
  const failing = reason(begin(call({ signal: caller.signal })));
  await proxy.waitForRequest(match, { nth: before + 1 });
  if (how === 'cancelled') caller.abort();
  else await clock.advance(CALL_MS);
  proxy.release('read');
  return await failing;
}

function busy(): string {
  const { id } = fake.addSession();
  fake.state.begin(id, 'run', {});
  fake.state.prompts.splice(0);
  return id;
}

function waiting(kind: 'permission' | 'question'): void {
  const sessionID = busy();
  if (kind === 'permission') fake.addPermission({ sessionID });
  else fake.addQuestion({ sessionID });
}

const A = { instance: 'a' };
/** The person decides after a while. */
const decided =
  (answer: PersonAnswer): AskPerson =>
  async () => {
    await clock.advance(2_000);
    return answer;
  };
const chosen = (decision: string): PersonAnswer => ({ kind: 'accepted', fields: { decision } });

type Begin = (call: Call) => Promise<unknown>;

/** Each operation's last request before its effect, and what the error says that it did not do. */
const CASES: Readonly<Record<string, readonly [string | RegExp, string, () => Begin]>> = {
  'send, status': [STATUS, 'nothing was sent', () => toSession({ message: 'x' })],
  'send, messages': [MESSAGES, 'nothing was sent', () => toSession({ message: 'x' })],
  'send, async': [STATUS, 'nothing was sent', () => toSession({ message: 'x', async: true })],
  'send, queue': [STATUS, 'nothing was sent', () => toSession({ message: 'x', when_busy: 'queue' })],
  'send, request_id': [MESSAGES, 'nothing was sent', () => toSession({ message: 'x', request_id: 'r' })],
  'send, to a new session': [SESSIONS, 'nothing was sent', () => (one) => send(runtime, { ...A, message: 'x' }, one)],
  'send, interrupt': [
    STATUS,
    'nothing was sent',
    () => {
      const session_id = busy();
      return (one) => send(runtime, { ...A, session_id, message: 'x', when_busy: 'interrupt' }, one);
    },
  ],
  abort_session: [
    STATUS,
    'nothing was aborted',
    () => {
      const session_id = busy();
      return (one) => abortSession(runtime, { ...A, session_id }, one);
    },
  ],
  'respond, once': [MESSAGES, 'nothing was answered', () => answering('permission', { reply: 'once' })],
  'respond, reject': [MESSAGES, 'nothing was answered', () => answering('permission', { reply: 'reject' })],
  'respond, always by the person': [
    MESSAGES,
    'nothing was answered',
    () => answering('permission', {}, chosen('always')),
  ],
  'respond, once by the person': [MESSAGES, 'nothing was answered', () => answering('permission', {}, chosen('once'))],
  'respond, declined by the person': [
    MESSAGES,
    'nothing was answered',
    () => answering('permission', { reply: 'once' }, { kind: 'declined' }),
  ],
  'respond, answers': [MESSAGES, 'nothing was answered', () => answering('question', { answers: [['Yes']] })],
  'respond, reject of a question': [MESSAGES, 'nothing was answered', () => answering('question', { reply: 'reject' })],
  fork_session: [MESSAGES, 'nothing was forked', () => onSession((session) => [forkSession, session])],
  rename_session: [
    STATUS,
    'nothing was renamed',
    () => onSession((session) => [renameSession, { ...session, title: 'new' }]),
  ],
  delete_session: [STATUS, 'nothing was deleted', () => onSession((session) => [deleteSession, session])],
};

function toSession(input: Omit<SendInput, 'instance'>): Begin {
  const { id } = fake.addSession();
  return (one) => send(runtime, { ...A, session_id: id, ...input }, one);
}

function answering(
  kind: 'permission' | 'question',
  input: Omit<Parameters<typeof respond>[1], 'instance'>,
  decision?: PersonAnswer,
): Begin {
  waiting(kind);
  return (one) =>
    respond(runtime, { ...A, ...input }, { ...one, ...(decision !== undefined && { askPerson: decided(decision) }) });
}

type OnSession = { readonly instance: string; readonly session_id: string };

function onSession<Input>(
  how: (session: OnSession) => [(runtime: Runtime, input: Input, call: Call) => Promise<unknown>, Input],
): Begin {
  const [operation, input] = how({ ...A, session_id: fake.addSession({ title: 'work' }).id });
  return (one) => operation(runtime, input, one);
}

test('calls that are not over each do what they are for', async () => {
  for (const [name, [, , begin]] of Object.entries(CASES)) {
    const before = effects().length;
    const done = reason(begin()(call()));
    await until(`the effect of ${name}`, () => effects().length > before);
    // What else it waits for does not matter here.
    await clock.advance(CALL_MS);
    await done;
  }
});

describe.each(ENDS)('a call that is %s between what it reads and what it does', (how) => {
  test.each(Object.entries(CASES))('%s: does nothing, and says so', async (_, [path, nothing, begin]) => {
    const message = await endWhileReading(how, path, begin());
    expect(message).toMatch(new RegExp(`^OperationError: a: ${WHY[how]}, and ${nothing}`));
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
    // Its entry is on disk when the call ends.
    const { journal } = runtime;
    const caller = new AbortController();
    const claim = journal.claim.bind(journal);
    journal.claim = async (...entry) => {
      const kept = await claim(...entry);
      if (how === 'cancelled') caller.abort();
      else await clock.advance(CALL_MS);
      return kept;
    };
    expect(await reason(send(runtime, input, call({ signal: caller.signal })))).toContain('nothing was sent');
    journal.claim = claim;
    expect((await send(runtime, input, call())).data).toMatchObject({ outcome: 'completed', text: 're: x' });
    const repeated = send(runtime, input, call({ deadlineMs: Number.POSITIVE_INFINITY }));
    let isTold = false;
    void repeated.then(() => (isTold = true));
    await until('the turn to be told once more', () => clock.advance(5_000).then(() => isTold));
    expect((await repeated).data.message_id).toBe(fake.state.prompts[0]?.body.messageID);
    expect(said()).toEqual(['x']);
  });

  test('send reports an abort or a new session from before its end', async () => {
    const session_id = busy();
    const interrupt = await endWhileReading(how, MESSAGES, (one) =>
      send(runtime, { ...A, session_id, message: 'x', abort: true }, one),
    );
    expect(interrupt).toContain(`nothing was sent by this call; what ran in session ${session_id} was aborted`);
    fake.state.removeSession(session_id);
    const begun = proxy.rule({ method: 'GET', path: MESSAGES }, { kind: 'hold', gate: 'again' });
    const caller = new AbortController();
    const failing = reason(send(runtime, { ...A, message: 'x' }, call({ signal: caller.signal })));
    await until('the session to be made', () => fake.state.sessions.size === 1);
    await proxy.waitForRequest({ path: new RegExp(`${[...fake.state.sessions.keys()].join('')}/message`) });
    if (how === 'cancelled') caller.abort();
    else await clock.advance(CALL_MS);
    begun();
    proxy.release('again');
    expect(await failing).toMatch(/nothing was sent by this call; session ses_\w+ was created for it/);
    expect(said()).toEqual([]);
  });
});

describe('a session held by a send whose endpoint hangs', () => {
  /** A send whose message a proxy has accepted but not passed on. */
  async function hold(session_id: string): Promise<{ readonly done: Promise<string> }> {
    proxy.rule({ path: PROMPT }, { kind: 'hold', gate: 'prompt' }, 1);
    const first = send(
      runtime,
      { ...A, session_id, message: 'first' },
      call({ deadlineMs: clock.monotonic() + 600_000 }),
    );
    await proxy.waitForRequest({ path: PROMPT });
    return { done: first.then(({ data }) => `${data.outcome}: ${data.text}`) };
  }

  test('none of fifteen waiting sends is sent after its deadline', async () => {
    const { id: session_id } = fake.addSession();
    const first = await hold(session_id);
    const others = Array.from({ length: 15 }, (_, index) =>
      reason(
        send(
          runtime,
          { ...A, session_id, message: String(index), ...(index % 2 === 1 && { request_id: 'r' }) },
          call({ deadlineMs: clock.monotonic() + (index + 1) * 1_000 }),
        ),
      ),
    );
    await until('all to wait', () => clock.due(16_000) === 15);
    await clock.advance(16_000);
    for (const message of await Promise.all(others)) expect(message).toMatch(/ran out, and nothing was sent/);
    proxy.release('prompt');
    expect(await first.done).toBe('completed: re: first');
    expect((await send(runtime, { ...A, session_id, message: 'last' }, call())).data.text).toBe('re: last');
    expect(said()).toEqual(['first', 'last']);
  });

  test('a send ends at its limit though the system clock is set back by an hour', async () => {
    const { id: session_id } = fake.addSession();
    const first = await hold(session_id);
    const second = reason(send(runtime, { ...A, session_id, message: 'second' }, call()));
    await until('the second to wait', () => clock.due(CALL_MS) === 1);
    clock.step(-3_600_000);
    await clock.advance(CALL_MS);
    expect(await second).toMatch(/ran out, and nothing was sent/);
    proxy.release('prompt');
    await first.done;
  });

  test('a cancelled waiting send is not sent, and the next one is', async () => {
    const { id: session_id } = fake.addSession();
    const first = await hold(session_id);
    const caller = new AbortController();
    const second = reason(send(runtime, { ...A, session_id, message: 'second' }, call({ signal: caller.signal })));
    await until('the second to wait', () => clock.due(CALL_MS) === 1);
    const third = send(runtime, { ...A, session_id, message: 'third' }, call());
    await until('the third to wait', () => clock.due(CALL_MS) === 2);
    caller.abort();
    expect(await second).toMatch(/cancelled, and nothing was sent/);
    proxy.release('prompt');
    expect(await first.done).toBe('completed: re: first');
    expect((await third).data.text).toBe('re: third');
    expect(said()).toEqual(['first', 'third']);
  });

  test.each(ENDS)('a waiting deletion, %s, deletes nothing', async (how) => {
    const { id: session_id } = fake.addSession();
    const first = await hold(session_id);
    const caller = new AbortController();
    const deleting = reason(deleteSession(runtime, { ...A, session_id }, call({ signal: caller.signal })));
    await until('it to wait', () => clock.due(CALL_MS) === 1);
    if (how === 'cancelled') caller.abort();
    else await clock.advance(CALL_MS);
    expect(await deleting).toBe(
      `OperationError: a: ${WHY[how]}, and nothing was deleted. Call again if it is still wanted.`,
    );
    proxy.release('prompt');
    await first.done;
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
    expect(said()).toEqual(['run']);
  });

  test.each([
    ['rename_session', 'PATCH', () => onSession((session) => [renameSession, { ...session, title: 'new' }])],
    ['fork_session', 'POST', () => onSession((session) => [forkSession, session])],
    ['delete_session', 'DELETE', () => onSession((session) => [deleteSession, session])],
  ] as const)('%s: what came of it is told', async (_, method, begin) => {
    const caller = new AbortController();
    proxy.rule({ method }, { kind: 'hold', gate: 'change' });
    const changing = begin()(call({ signal: caller.signal }));
    await proxy.waitForRequest({ method });
    caller.abort();
    proxy.release('change');
    expect(await changing).toMatchObject({ data: { session: expect.any(Object) as object } });
  });
});
