import { describe, expect, test } from 'vitest';

import { OVERVIEW_PARTS, type SessionSummary } from '../../src/model/instance.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { until } from '../rig/wait.ts';
import { ask, fakeOpencode } from './probe-once.ts';

/** Probes every part of the overview. */
const survey = (fake: FakeOpencode, options: Parameters<typeof ask>[1] = {}) =>
  ask(fake.url, { parts: OVERVIEW_PARTS, ...options });

describe('the overview', () => {
  test("has status, permissions, questions and the latest root session of the instance's own directory", async () => {
    const fake = await fakeOpencode({ directory: '/home/user/päth' });
    const session = fake.addSession({ title: 'Fix\u001b[31m the\nbuild' });
    fake.addSession({ title: 'elsewhere', directory: '/other' });
    fake.addPermission({ sessionID: session.id });
    fake.addQuestion({ sessionID: session.id });
    fake.state.statuses.set(session.id, { type: 'busy' });
    const look = await survey(fake);
    expect(look).toMatchObject({
      learnt: {
        status: { activity: { kind: 'busy' }, running: [session.id] },
        permissions: [{ kind: 'permission', sessionId: session.id, text: 'bash "ls"' }],
        questions: [{ kind: 'question', sessionId: session.id, text: 'Go on? Yes | No' }],
        session: {
          id: session.id,
          title: 'Fix the build',
          directory: '/home/user/päth',
          updatedMs: session.time.updated,
        },
      },
      missing: [],
      timedOut: false,
      // One further request reads the session of the permission and the question.
      requests: 7,
    });
  });

  test("marks a sub-agent's request, and puts no malformed session id into a path", async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const parent = fake.addSession();
    const child = fake.addSession({ parentID: parent.id });
    fake.addPermission({ sessionID: child.id });
    expect((await ask(fake.url, { parts: ['permissions'] })).learnt).toMatchObject({
      permissions: [{ sessionId: child.id, ofSubAgent: true }],
    });
    // If this request were only left out, the list would seem complete.
    fake.addPermission({ sessionID: '../../pty' });
    fake.override('GET /session/status', { kind: 'answer', body: { '../../pty': { type: 'busy' } } });
    const parts = ['status', 'permissions'] as const;
    expect(await ask(fake.url, { parts })).toMatchObject({ learnt: {}, missing: parts });
    expect([fake.count('GET /session/:id'), fake.count('other')]).toEqual([1, 0]);
  });

  test('leaves out a request of an aborted turn, but not a request whose turn cannot be read', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.state.begin(session.id, 'first');
    const [, asking] = fake.state.messages.get(session.id) ?? [];
    const tool = { messageID: asking?.info.id ?? '', callID: 'call_1' };
    fake.addPermission({ sessionID: session.id, tool });
    const countWaiting = async (): Promise<number | undefined> => (await survey(fake)).learnt.permissions?.length;
    expect(await countWaiting()).toBe(1);
    fake.override('GET /session/:id/message/:messageID', { kind: 'answer', status: 500 }, 1);
    expect(await countWaiting()).toBe(1);
    Object.assign(asking?.info ?? {}, { error: { name: 'MessageAbortedError', data: { message: 'Aborted' } } });
    expect(await countWaiting()).toBe(0);
  });

  test('has the status and requests of each other directory', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const elsewhere = ['/home/user/b', '/home/user/c'].map((directory) => ({ directory, isListed: true }));
    const session = fake.addSession({ directory: '/home/user/b' });
    fake.addPermission({ sessionID: session.id });
    fake.state.statuses.set(session.id, { type: 'busy' });
    const look = await ask(fake.url, { parts: ['status'], elsewhere });
    expect(look.learnt).toEqual({ status: { activity: { kind: 'idle' }, running: [] } });
    expect(look.elsewhere?.get('/home/user/b')).toMatchObject({
      learnt: { status: { running: [session.id] }, permissions: [{ sessionId: session.id, ofSubAgent: false }] },
      missing: [],
    });
    expect(look.elsewhere?.get('/home/user/c')?.learnt).toMatchObject({ status: { running: [] }, permissions: [] });
    // Health, path, three statuses, permissions and questions of the busy directory, and the session of the permission.
    expect(look.requests).toBe(8);
    fake.override('GET /session/status', { kind: 'html' });
    const failed = await ask(fake.url, { elsewhere });
    expect(failed.elsewhere?.get('/home/user/b')).toMatchObject({ missing: ['status'] });
  });

  test('includes a directory that was not just listed only if the server has a session there', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const [there, moved] = ['/home/user/b', '/home/user/x'].map((directory) => fake.addSession({ directory }));
    const elsewhere = [
      { directory: '/home/user/b', witness: there?.id, isListed: false },
      { directory: '/home/user/c', witness: moved?.id, isListed: false },
      { directory: '/home/user/d', witness: 'ses_gone', isListed: false },
      { directory: '/home/user/e', isListed: false },
    ];
    const look = await ask(fake.url, { elsewhere });
    expect(look.elsewhere?.get('/home/user/b')?.learnt).toMatchObject({ witness: there?.id, status: { running: [] } });
    for (const name of ['c', 'd', 'e'])
      expect(look.elsewhere?.get(`/home/user/${name}`)).toMatchObject({ learnt: {}, isForeign: true });
    expect(fake.count('GET /session/status')).toBe(1);
    // If the session cannot be read, the directory is not foreign.
    fake.override('GET /session/:id', { kind: 'answer', status: 500 });
    expect((await ask(fake.url, { elsewhere })).elsewhere?.get('/home/user/b')).not.toHaveProperty('isForeign');
  });

  test('lists the directories of sessions that were used in the last ten minutes', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const minutesAgo = (minutes: number): { created: number; updated: number } => ({
      created: 1,
      updated: Date.now() - minutes * 60_000,
    });
    const parent = fake.addSession({ directory: '/home/user/b', time: minutesAgo(9) });
    fake.addSession({ directory: '/home/user/b', parentID: parent.id, time: minutesAgo(1) });
    const child = fake.addSession({ directory: '/home/user/c', parentID: parent.id, time: minutesAgo(5) });
    fake.addSession({ directory: '/home/user/d', time: minutesAgo(11) });
    const own = fake.addSession({ time: minutesAgo(60) });
    const { session, recent } = (await ask(fake.url, { parts: ['session'] })).learnt;
    expect(session).toMatchObject({ id: own.id });
    expect([...(recent?.sessions ?? [])].map(([directory, { id, isChild }]) => [directory, id, isChild])).toEqual([
      ['/home/user/b', parent.id, false],
      ['/home/user/c', child.id, true],
    ]);
    expect(recent?.more).toBe(0);
  });

  test("requests the own directory's latest session if the list is full of others, and counts directories beyond 32", async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const own = fake.addSession({ time: { created: 1, updated: 1 } });
    for (let index = 0; index < 60; index += 1) fake.addSession({ directory: `/home/user/w${index}` });
    const { session, recent } = (await ask(fake.url, { parts: ['session'] })).learnt;
    expect(session).toMatchObject({ id: own.id });
    expect([recent?.sessions.size, recent?.more]).toEqual([32, 28]);
  });

  test.each([
    ['refused, as by a node service to a caller that may only read', { kind: 'answer', status: 403, body: {} }],
    ['a web page', { kind: 'html' }],
    ['too long', { kind: 'endless' }],
  ] as const)('uses the list of the own directory if the list of all sessions is %s', async (_, override) => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const own = fake.addSession();
    fake.addSession({ directory: '/home/user/b' });
    const { id } = fake.addSession();
    fake.state.sessions.set(id, { ...own, id, time: { created: 1, updated: Date.now() + 1, archived: 2 } });
    fake.override('GET /experimental/session', override);
    const look = await ask(fake.url, { parts: ['session'] });
    expect(look).toMatchObject({ missing: [], learnt: { session: { id: own.id } } });
    expect(look.learnt.recent?.sessions.size).toBe(0);
  });

  test('reports a retry rather than other work', async () => {
    const fake = await fakeOpencode();
    fake.state.statuses.set('ses_1', { type: 'busy' });
    fake.state.statuses.set('ses_2', { type: 'retry', attempt: 3, message: 'Overloaded\nagain', next: 0 });
    expect((await ask(fake.url, { parts: ['status'] })).learnt).toEqual({
      status: {
        activity: { kind: 'retrying', attempt: 3, message: 'Overloaded again' },
        running: ['ses_1', 'ses_2'],
      },
    });
  });

  test('of an idle server without sessions is empty', async () => {
    const fake = await fakeOpencode();
    expect((await survey(fake)).learnt).toEqual({
      status: { activity: { kind: 'idle' }, running: [] },
      permissions: [],
      questions: [],
      session: null,
      recent: { sessions: new Map(), more: 0 },
    });
  });

  test('costs three requests while idle, once the version is known, and two more while a session runs', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    const version = '1.18.33';
    const first = await survey(fake, { version });
    // One further request reads how its latest turn ended.
    expect(first).toMatchObject({ result: { status: 'healthy', version }, missing: [], requests: 4 });
    const known = first.learnt;
    expect(await survey(fake, { version, known })).toMatchObject({
      learnt: known,
      missing: [],
      latencyMs: expect.any(Number),
      requests: 3,
    });
    fake.state.statuses.set(session.id, { type: 'busy' });
    expect((await survey(fake, { version, known })).requests).toBe(5);
    expect(fake.count('GET /global/health')).toBe(0);
  });

  test('looks up the session of a request once', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.state.statuses.set(session.id, { type: 'busy' });
    fake.addPermission({ sessionID: session.id });
    const { learnt } = await survey(fake);
    expect(learnt.permissions).toMatchObject([{ ofSubAgent: false }]);
    expect((await survey(fake, { known: learnt })).learnt).toEqual(learnt);
    expect(fake.count('GET /session/:id')).toBe(1);
  });

  test('has permissions and questions even if the status is unknown', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.addPermission({ sessionID: session.id });
    fake.override('GET /session/status', { kind: 'answer', status: 500, body: {} });
    expect(await survey(fake)).toMatchObject({
      learnt: { permissions: [{ sessionId: session.id }], questions: [] },
      missing: ['status'],
    });
  });

  test('lists parts with malformed answers as missing, and not as timed out', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    for (const route of ['GET /experimental/session', 'GET /session'] as const)
      fake.override(route, { kind: 'answer', body: [{ ...session, id: '../../pty' }] });
    fake.override('GET /session/status', { kind: 'answer', body: [] });
    fake.override('GET /permission', { kind: 'html' });
    fake.override('GET /question', { kind: 'answer', body: [1] });
    const look = await survey(fake);
    expect(look).toMatchObject({ result: { status: 'healthy' }, timedOut: false });
    expect(look.learnt).toEqual({});
    expect(look.missing.toSorted()).toEqual([...OVERVIEW_PARTS].toSorted());
  });

  test('keeps a permission request without its large diff', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.addPermission({ sessionID: session.id, metadata: { diff: 'x'.repeat(9_000_000) } });
    expect((await ask(fake.url, { parts: ['permissions'] })).learnt).toEqual({
      permissions: [expect.objectContaining({ kind: 'permission', text: 'bash "ls"' })],
    });
  });
});

describe('the state of the latest session that does not run', () => {
  const MINUTE = 60_000;

  async function openWithLastMessage(
    info: object | undefined,
  ): Promise<{ readonly fake: FakeOpencode; readonly id: string }> {
    const fake = await fakeOpencode();
    const { id } = fake.addSession();
    if (info !== undefined) fake.override('GET /session/:id/message', { kind: 'answer', body: [{ info, parts: [] }] });
    return { fake, id };
  }

  test.each([
    ['the session has no message', undefined, 'idle'],
    [
      'the last message is complete',
      (now) => ({ role: 'assistant', time: { created: now - 2, completed: now } }),
      'idle',
    ],
    [
      'the last message failed',
      (created) => ({ role: 'assistant', time: { created }, error: { name: 'MessageAbortedError' } }),
      'idle',
    ],
    ['the last message is not complete', (created) => ({ role: 'assistant', time: { created } }), 'interrupted'],
    ['the user has just sent a message', (created) => ({ role: 'user', time: { created } }), 'starting'],
    [
      "the user's last message was never answered",
      (now) => ({ role: 'user', time: { created: now - MINUTE } }),
      'interrupted',
    ],
    ['the last message is malformed', () => ({ role: 7, time: 'x' }), 'idle'],
  ] satisfies readonly (readonly [string, ((nowMs: number) => object) | undefined, string])[])(
    'depends on the last message: %s',
    async (_, info, state) => {
      const { fake } = await openWithLastMessage(info?.(Date.now()));
      const { learnt, missing } = await survey(fake);
      expect(learnt.session?.rest?.state).toBe(state);
      expect(missing).toEqual([]);
    },
  );

  test('is requested once for a turn that has ended, and each time until then', async () => {
    const { fake } = await openWithLastMessage(undefined);
    const first = (await survey(fake)).learnt.session ?? undefined;
    const again = await survey(fake, { known: { session: first ?? null } });
    expect(again.learnt.session).toEqual(first);
    expect(fake.count('GET /session/:id/message')).toBe(1);
    for (const changed of [
      { ...first, updatedMs: 1 },
      { ...first, id: 'ses_other' },
      { ...first, rest: { state: 'starting' } },
    ])
      await survey(fake, { known: { session: changed as SessionSummary } });
    expect(fake.count('GET /session/:id/message')).toBe(4);
  });

  test('is not requested while the session runs or the status is unknown', async () => {
    const { fake, id } = await openWithLastMessage(undefined);
    await ask(fake.url, { parts: ['session'] });
    fake.state.statuses.set(id, { type: 'busy' });
    expect((await survey(fake)).learnt.session).not.toHaveProperty('rest');
    expect(fake.count('GET /session/:id/message')).toBe(0);
  });

  test('is requested in another directory only after work was seen there, since another process may run the session', async () => {
    const { fake } = await openWithLastMessage({ role: 'assistant', time: { created: Date.now() } });
    const { id, title } = fake.addSession({ directory: '/home/user/b' });
    const session = { id, title, directory: '/home/user/b', updatedMs: 1 };
    const other = { directory: '/home/user/b', isListed: true, session };
    const readRestState = async (known?: object): Promise<unknown> => {
      const look = await ask(fake.url, { elsewhere: [{ ...other, known }] });
      return look.elsewhere?.get('/home/user/b')?.learnt.session?.rest?.state;
    };
    expect([await readRestState(), await readRestState({})]).toEqual([undefined, 'interrupted']);
  });

  test('is busy, not interrupted, if the turn began after the status was read', async () => {
    const { fake, id } = await openWithLastMessage({ role: 'assistant', time: { created: Date.now() } });
    fake.override('GET /session/status', { kind: 'answer', body: {} }, 1);
    fake.state.statuses.set(id, { type: 'busy' });
    expect((await survey(fake)).learnt).toMatchObject({
      status: { activity: { kind: 'busy' }, running: [id] },
    });
  });

  test('is idle if the message is too large, and requested again if the request hangs', async () => {
    const { fake } = await openWithLastMessage({
      role: 'user',
      time: { created: Date.now() },
      text: Array.from({ length: 3_000 }, () => 'x'.repeat(1_000)),
    });
    const big = await survey(fake);
    expect(big).toMatchObject({ missing: [], timedOut: false, learnt: { session: { rest: { state: 'idle' } } } });
    fake.override('GET /session/:id/message', { kind: 'hang' });
    const giveUp = until('the request', () => fake.count('GET /session/:id/message') === 2);
    const silent = await survey(fake, { giveUp });
    expect(silent).toMatchObject({ missing: [], timedOut: false, learnt: { permissions: [] } });
    expect(silent.learnt.session).not.toHaveProperty('rest');
  });
});
