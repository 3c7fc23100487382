import { beforeEach, describe, expect, test } from 'vitest';

import { respond, type RespondInput } from '../../src/operations/respond/respond.ts';
import type { Call, Runtime } from '../../src/operations/runtime.ts';
import { abortSession } from '../../src/operations/send/abort.ts';
import { send } from '../../src/operations/send/send.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { deleteSession, forkSession, renameSession } from '../../src/operations/sessions/session-changes.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import type { Fault, FaultProxy } from '../rig/network/fault-proxy.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';
import { Stage } from './stage.ts';

const WORKER = { instance: 'worker' } as const;
const html = (status: number): Fault => ({
  kind: 'respond',
  status,
  headers: { 'content-type': 'text/html' },
  body: '<html>not from opencode</html>',
});
/** With these faults of a proxy opencode never gets the request, but the caller cannot know that. */
const FAULTS_BEFORE_OPENCODE: readonly (readonly [string, Fault])[] = [
  ['a gateway times out', html(504)],
  ['a login page answers', html(200)],
  ['the answer is empty', { kind: 'respond', status: 200 }],
  [
    'the answer is truncated JSON',
    { kind: 'respond', status: 200, headers: { 'content-type': 'application/json' }, body: '{"id":' },
  ],
  ['the connection breaks', { kind: 'reset' }],
];
const REFUSED: Fault = { kind: 'respond', status: 429, headers: { 'content-type': 'text/plain' }, body: 'slow down' };

let fake: FakeOpencode;
let proxy: FaultProxy;
/** Its clock leaps over the wait for an effect. */
let runtime: Runtime;

beforeEach(async () => {
  const stage = new Stage();
  ({ fake, proxy } = await stage.add('worker', { reply: (text) => (text === 'run' ? undefined : `re: ${text}`) }));
  runtime = { ...testRuntime(stage.fleet), clock: leapingClock() };
  await stage.start();
  return stage.close;
});

function call(): Call {
  return testCall({ deadlineMs: runtime.clock.monotonic() + 60_000 });
}

function addRunningSession(): string {
  const { id } = fake.addSession({ title: 'old' });
  fake.state.begin(id, 'run', {});
  return id;
}

const respondWith = (input: Omit<RespondInput, 'instance'>) => async (): Promise<string> =>
  String((await respond(runtime, { ...WORKER, ...input }, call())).data.settled);
const ANSWER = {
  request: { method: 'POST', path: /\/reply$/ },
  done: /^(?:allowed once|answered).*\(opencode's answer did not come, but it no longer waits\)$/,
  still: 'still waits for',
  undone: 'nothing was answered',
};
/** `effect` is the path that shows the change; `done`, `still` and `undone` are its texts in results and errors. */
const CHANGES = {
  'an abort': {
    arrange: (): unknown => undefined,
    make: async () => {
      const [session_id = ''] = fake.state.statuses.keys();
      return (await abortSession(runtime, { ...WORKER, session_id }, call())).data.outcome;
    },
    request: { method: 'POST', path: /\/abort$/ },
    effect: '/session/status',
    isDone: () => fake.state.statuses.size === 0,
    done: /^aborted$/,
    still: 'still runs',
    undone: 'nothing was aborted',
  },
  'an answer to a permission': {
    ...ANSWER,
    arrange: (sessionID: string): unknown => fake.addPermission({ sessionID }),
    make: respondWith({ reply: 'once' }),
    effect: '/permission',
    isDone: () => fake.state.permissions.size === 0,
  },
  'an answer to a question': {
    ...ANSWER,
    arrange: (sessionID: string): unknown => fake.addQuestion({ sessionID }),
    make: respondWith({ answers: [['Red']] }),
    effect: '/question',
    isDone: () => fake.state.questions.size === 0,
  },
};

describe.each(Object.entries(CHANGES))('%s', (_, { arrange, make, request, effect, isDone, done, still, undone }) => {
  beforeEach(() => arrange(addRunningSession()));

  test.each(FAULTS_BEFORE_OPENCODE)('fails and may still take effect if %s', async (__, fault) => {
    proxy.rule(request, fault);
    await expect(make()).rejects.toThrow(
      new RegExp(`failed: opencode's answer did not come \\(POST .*${still}.*; it may still take effect`),
    );
    expect(isDone()).toBe(false);
  });

  test('succeeds if its effect is visible, even if the answer is lost', async () => {
    proxy.rule(request, { kind: 'lose-response' });
    expect(await make()).toMatch(done);
    expect(isDone()).toBe(true);
  });

  test('fails if opencode refuses the request', async () => {
    proxy.rule(request, REFUSED);
    await expect(make()).rejects.toThrow(new RegExp(`HTTP 429.*${undone}`));
  });

  test('fails if its effect cannot be read', async () => {
    proxy.rule(request, { kind: 'hold', gate: 'change' });
    void proxy.waitForRequest(request).then(() => {
      proxy.rule({ method: 'GET', path: effect }, html(502));
      proxy.release('change');
    });
    await expect(make()).rejects.toThrow(/failed: worker accepted it, but its state cannot be read \(GET .*HTTP 502/);
    expect(isDone()).toBe(true);
  });
});

test('an abort that opencode accepts fails if it has no effect', async () => {
  const session_id = addRunningSession();
  fake.override('POST /session/:id/abort', { kind: 'answer', body: true });
  await expect(abortSession(runtime, { ...WORKER, session_id }, call())).rejects.toThrow(
    /Abort failed: worker accepted it, but session \w+ still runs/,
  );
});

describe('a session', () => {
  const countSessions = (): number => fake.state.sessions.size;

  test.each([
    ...FAULTS_BEFORE_OPENCODE,
    ['the answer is lost', { kind: 'lose-response' }],
  ] as typeof FAULTS_BEFORE_OPENCODE)(
    'may have been created or forked if %s, and the error advises to list the sessions first',
    async (_, fault) => {
      const { id } = fake.addSession();
      const before = countSessions();
      const creating = { method: 'POST', path: /^\/session(?:\/[^/]+\/fork)?$/ };
      proxy.rule(creating, fault);
      for (const made of [
        createSession(runtime, { ...WORKER, title: 'new' }, call()),
        forkSession(runtime, { ...WORKER, session_id: id }, call()),
      ])
        await expect(made).rejects.toThrow(
          /it is unknown whether the session was made: .*list_sessions before you call/,
        );
      expect(countSessions() - before).toBe(fault.kind === 'lose-response' ? 2 : 0);
    },
  );

  test('is not created if opencode refuses the request', async () => {
    proxy.rule({ method: 'POST', path: '/session' }, REFUSED);
    await expect(createSession(runtime, WORKER, call())).rejects.toThrow(/HTTP 429.*no session was created/);
  });

  test('is renamed or deleted if the effect is visible, whatever the answer', async () => {
    const { id } = fake.addSession({ title: 'old' });
    const changing = { path: new RegExp(`^/session/${id}$`) };
    for (const method of ['PATCH', 'DELETE']) proxy.rule({ method, ...changing }, html(502), 1);
    const rename = (): ReturnType<typeof renameSession> =>
      renameSession(runtime, { ...WORKER, session_id: id, title: 'new' }, call());
    const remove = (): ReturnType<typeof deleteSession> =>
      deleteSession(runtime, { ...WORKER, session_id: id }, call());
    await expect(rename()).rejects.toThrow(
      /Rename failed: opencode's answer .*HTTP 502.*called "old"; it may still take effect/,
    );
    await expect(remove()).rejects.toThrow(
      /Delete failed: opencode's answer .*HTTP 502.*still there; it may still take effect/,
    );
    for (const method of ['PATCH', 'DELETE']) proxy.rule({ method, ...changing }, { kind: 'lose-response' }, 1);
    expect((await rename()).data.session.title).toBe('new');
    expect((await remove()).data.deleted).toBe(true);
  });
});

describe('a send that fails before its message is sent says that nothing was sent', () => {
  const sendResult = async (input: object = {}): Promise<string> =>
    await send(runtime, { ...WORKER, message: 'hello', ...input }, call()).then(
      ({ text }) => text,
      (error: unknown) => String(error),
    );

  test.each([
    ['which sessions it has', '/session', {}],
    ['what that session is', /^\/session\/ses/, { session_id: 'ses_000000000000' }],
    ['what runs', '/session/status', {}],
    ['which messages it has', /\/message$/, {}],
    ['which agents it has', '/agent', { agent: 'plan' }],
    ['which models it has', '/config/providers', { model: 'a/b' }],
    ['in which directory it is', '/path', {}],
  ] as const)('if opencode cannot say %s', async (_, path, input) => {
    fake.addSession();
    for (const fault of [html(503), html(200), html(404), REFUSED]) {
      proxy.pass();
      proxy.rule({ method: 'GET', path }, fault);
      expect(await sendResult(input)).toMatch(/nothing was sent/i);
    }
    expect(proxy.count({ path: /prompt_async$/ })).toBe(0);
  });

  test('if the instance or session is unknown or the abort fails', async () => {
    const id = addRunningSession();
    for (const input of [{ instance: 'nobody' }, { instance: ['worker', 'nobody'] }, { session_id: 'none' }])
      expect(await sendResult(input)).toMatch(/nothing was (?:sent|done)/i);
    proxy.rule({ path: /\/abort$/ }, html(502));
    expect(await sendResult({ session_id: id, abort: true })).toMatch(/Abort failed.*nothing was sent/);
    expect(proxy.count({ path: /prompt_async$/ })).toBe(0);
  });

  test('if it is unknown whether the new session was created', async () => {
    proxy.rule({ method: 'POST', path: '/session' }, html(502));
    expect(await sendResult()).toMatch(/it is unknown whether the session was made.*nothing was sent/);
  });
});

test.each(['null', 'true', '{"ok":true}'])(
  'a proxy that answers %s to a message has not delivered it',
  async (body) => {
    fake.addSession();
    proxy.rule(
      { path: /prompt_async$/ },
      { kind: 'respond', status: 200, headers: { 'content-type': 'application/json' }, body },
    );
    await expect(send(runtime, { ...WORKER, message: 'hello' }, call())).rejects.toThrow(
      /it is unknown whether the message arrived.*HTTP 200 instead of 204/,
    );
  },
);

test('an answer that names none of 28 waiting requests fails with their number', async () => {
  for (let index = 0; index < 28; index += 1) fake.addPermission({ sessionID: addRunningSession() });
  await expect(respond(runtime, { ...WORKER, reply: 'once' }, call())).rejects.toThrow(
    /worker waits for 28 things.*; 8 more\.$/,
  );
});
