import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { respond, type RespondInput } from '../../src/operations/respond/respond.ts';
import type { Call, Runtime } from '../../src/operations/runtime.ts';
import { abortSession } from '../../src/operations/send/abort.ts';
import { send } from '../../src/operations/send/send.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { deleteSession, forkSession, renameSession } from '../../src/operations/sessions/session-changes.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { type Fault, type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { openRegistry } from '../rig/registry.ts';
import { testCall, testFleet, testRegistrySource, testRuntime } from '../rig/runtime.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';

const WORKER = { instance: 'worker' } as const;
const html = (status: number): Fault => ({
  kind: 'respond',
  status,
  headers: { 'content-type': 'text/html' },
  body: '<html>not from opencode</html>',
});
/** Answers of a proxy to a request that opencode never gets, which leave its effect in doubt. */
const NO_ANSWERS: readonly (readonly [string, Fault])[] = [
  ['a gateway gave it up', html(504)],
  ['a login page came', html(200)],
  ['nothing came', { kind: 'respond', status: 200 }],
  [
    'half of some JSON came',
    { kind: 'respond', status: 200, headers: { 'content-type': 'application/json' }, body: '{"id":' },
  ],
  ['the connection broke', { kind: 'reset' }],
];
const REFUSED: Fault = { kind: 'respond', status: 429, headers: { 'content-type': 'text/plain' }, body: 'slow down' };

let temp: TempDir;
let fake: FakeOpencode;
let proxy: FaultProxy;
let fleet: LiveFleet;
/** Its clock leaps over the wait for an effect. */
let runtime: Runtime;

beforeEach(async () => {
  temp = tempDir('doubt');
  const registry = await openRegistry(`${temp.path}/registry`);
  fake = await startFakeOpencode({ reply: (text) => (text === 'run' ? undefined : `re: ${text}`) });
  proxy = await startFaultProxy(fake.url);
  await registry.add({ name: 'worker', port: proxy.port, cwd: fake.directory });
  fleet = testFleet(testRegistrySource(registry.path), 5_000);
  runtime = { ...testRuntime(fleet), clock: leapingClock() };
  fleet.start();
});
afterEach(async () => {
  await fleet.close();
  await proxy.close();
  await fake.close();
  await temp.close();
});

function call(): Call {
  return testCall({ deadlineMs: runtime.clock.monotonic() + 3_600_000 });
}

function running(): string {
  const { id } = fake.addSession({ title: 'old' });
  fake.state.begin(id, 'run', {});
  return id;
}

describe('an abort', () => {
  const ABORT = { method: 'POST', path: /\/abort$/ } as const;
  const abort = (session_id: string): ReturnType<typeof abortSession> =>
    abortSession(runtime, { ...WORKER, session_id }, call());

  test.each(NO_ANSWERS)('to which %s: reports that it still runs, not that it was accepted', async (_, fault) => {
    const id = running();
    proxy.rule(ABORT, fault);
    const told = await abort(id).catch(String);
    expect(told).toMatch(/opencode's answer did not come \(POST .*still runs; it may still take effect/);
    expect(told).not.toContain('accepted');
  });

  test('whose answer was lost is reported as done, since its effect shows', async () => {
    const id = running();
    proxy.rule(ABORT, { kind: 'lose-response' });
    expect((await abort(id)).data).toMatchObject({ aborted: true, outcome: 'aborted' });
  });

  test('that was refused was not made', async () => {
    const id = running();
    proxy.rule(ABORT, REFUSED);
    await expect(abort(id)).rejects.toThrow(/HTTP 429.*nothing was aborted/);
  });

  test('after which the status cannot be read: reports neither', async () => {
    const id = running();
    const begun = proxy.waitForRequest(ABORT).then(() => proxy.rule({ path: '/session/status' }, html(502)));
    proxy.rule(ABORT, { kind: 'hold', gate: 'abort' });
    void begun.then(() => proxy.release('abort'));
    const told = await abort(id).catch(String);
    expect(told).toMatch(/Abort failed: worker accepted it, but its state cannot be read \(GET .*HTTP 502/);
    expect(fake.state.statuses.size).toBe(0);
  });
});

describe.each(['permission', 'question'] as const)('the answer to a %s', (kind) => {
  const REPLY = { method: 'POST', path: /\/reply$/ } as const;
  const WAITING = { method: 'GET', path: `/${kind}` } as const;
  const input: RespondInput = kind === 'permission' ? { ...WORKER, reply: 'once' } : { ...WORKER, answers: [['Red']] };
  /** Its request disappears once it is answered; the turn is then over. */
  const answer = async (): Promise<string> => {
    const answered = respond(runtime, input, call());
    return await answered.then(
      ({ data }) => String(data.settled),
      (error: unknown) => String(error),
    );
  };
  const isWaiting = (): boolean => (kind === 'permission' ? fake.state.permissions : fake.state.questions).size > 0;

  beforeEach(() => {
    const sessionID = running();
    if (kind === 'permission') fake.addPermission({ sessionID });
    else fake.addQuestion({ sessionID });
  });

  test.each(NO_ANSWERS)('to which %s: reports that it still waits, not that it was accepted', async (_, fault) => {
    proxy.rule(REPLY, fault);
    const told = await answer();
    expect(told).toMatch(/opencode's answer did not come \(POST .*still waits for .*it may still take effect/);
    expect(told).not.toMatch(/accepted|took/);
    expect(isWaiting()).toBe(true);
  });

  test('whose answer was lost is reported as done with a doubt', async () => {
    proxy.rule(REPLY, { kind: 'lose-response' });
    const told = await answer();
    expect(told).toMatch(/^(?:allowed once|answered).*\(opencode's answer did not come, but it no longer waits\)$/);
    expect(isWaiting()).toBe(false);
  });

  test('that was refused was not given', async () => {
    proxy.rule(REPLY, REFUSED);
    expect(await answer()).toMatch(/HTTP 429.*nothing was answered/);
  });

  test('after which the waiting requests cannot be read: reports neither', async () => {
    proxy.rule(REPLY, { kind: 'hold', gate: 'reply' });
    void proxy.waitForRequest(REPLY).then(() => {
      proxy.rule(WAITING, html(502));
      proxy.release('reply');
    });
    expect(await answer()).toMatch(/Answer failed: worker accepted it, but its state cannot be read \(GET .*502/);
    expect(isWaiting()).toBe(false);
  });
});

describe('a session', () => {
  const sessions = (): number => fake.state.sessions.size;

  test.each([...NO_ANSWERS, ['its answer was lost', { kind: 'lose-response' }]] as typeof NO_ANSWERS)(
    'that is made or forked, and %s: nobody is told to make it once more',
    async (_, fault) => {
      const { id } = fake.addSession();
      const before = sessions();
      const creating = { method: 'POST', path: /^\/session(?:\/[^/]+\/fork)?$/ };
      proxy.rule(creating, fault);
      for (const made of [
        createSession(runtime, { ...WORKER, title: 'new' }, call()),
        forkSession(runtime, { ...WORKER, session_id: id }, call()),
      ])
        await expect(made).rejects.toThrow(
          /it is unknown whether the session was made: .*list_sessions before you call/,
        );
      expect(sessions() - before).toBe(fault.kind === 'lose-response' ? 2 : 0);
    },
  );

  test('whose creation was refused: reports the refusal', async () => {
    proxy.rule({ method: 'POST', path: '/session' }, REFUSED);
    await expect(createSession(runtime, WORKER, call())).rejects.toThrow(/HTTP 429.*no session was created/);
  });

  test('that is renamed or deleted: the visible effect counts, not the answer', async () => {
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

describe('a send that fails before its message was sent says that nothing was', () => {
  const sending = async (more: object = {}): Promise<string> =>
    await send(runtime, { ...WORKER, message: 'hello', ...more }, call()).then(
      ({ text }) => text,
      (error: unknown) => String(error),
    );

  test.each([
    ['its sessions', '/session', {}],
    ['one session', /^\/session\/ses/, { session_id: 'ses_000000000000' }],
    ['what runs', '/session/status', {}],
    ['its messages', /\/message$/, {}],
    ['its agents', '/agent', { agent: 'plan' }],
    ['its models', '/config/providers', { model: 'a/b' }],
    ['where it is', '/path', {}],
  ] as const)('since %s cannot be read', async (_, path, more) => {
    fake.addSession();
    await fleet.ready();
    for (const fault of [html(503), html(200), html(404), REFUSED]) {
      proxy.pass();
      proxy.rule({ method: 'GET', path }, fault);
      expect(await sending(more)).toMatch(/nothing was sent/i);
    }
    expect(proxy.count({ path: /prompt_async$/ })).toBe(0);
  });

  test('since the agent or session is unknown, or the abort failed', async () => {
    const id = running();
    for (const more of [{ instance: 'nobody' }, { instance: ['worker', 'nobody'] }, { session_id: 'none' }])
      expect(await sending(more)).toMatch(/nothing was (?:sent|done)/i);
    proxy.rule({ path: /\/abort$/ }, html(502));
    expect(await sending({ session_id: id, abort: true })).toMatch(/Abort failed.*nothing was sent/);
    expect(proxy.count({ path: /prompt_async$/ })).toBe(0);
  });

  test('since the new session may not have been made', async () => {
    proxy.rule({ method: 'POST', path: '/session' }, html(502));
    expect(await sending()).toMatch(/it is unknown whether the session was made.*nothing was sent/);
  });
});

test.each(['null', 'true', '{"ok":true}'])('a message to which a proxy says %s was not taken by that', async (body) => {
  fake.addSession();
  proxy.rule(
    { path: /prompt_async$/ },
    { kind: 'respond', status: 200, headers: { 'content-type': 'application/json' }, body },
  );
  await expect(send(runtime, { ...WORKER, message: 'hello' }, call())).rejects.toThrow(
    /it is unknown whether the message arrived.*HTTP 200 instead of 204/,
  );
});

test('twenty-eight that wait are told as so many', async () => {
  for (let index = 0; index < 28; index += 1) fake.addPermission({ sessionID: running() });
  await expect(respond(runtime, { ...WORKER, reply: 'once' }, call())).rejects.toThrow(
    /worker waits for 28 things.*; 8 more\.$/,
  );
});
