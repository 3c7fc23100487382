import { setImmediate as nextTurn } from 'node:timers/promises';

import { createHash } from 'node:crypto';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';

import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { abortSession } from '../../src/operations/send/abort.ts';
import { instances, listInstances, refreshInstances } from '../../src/operations/listing/instances.ts';
import { read } from '../../src/operations/sessions/read.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { remember } from '../../src/operations/send/following.ts';
import { send } from '../../src/operations/send/send.ts';
import { respond } from '../../src/operations/respond/respond.ts';
import { createSession, listSessions } from '../../src/operations/sessions/sessions.ts';
import type { Message, Session } from '../../src/opencode/schema.ts';
import { stageOf } from '../../src/turns/follower.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { newId } from '../rig/fake/fake-objects.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { testCall, testFleet, testRegistrySource, testRuntime } from '../rig/runtime.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

const LIST = { offset: 0, limit: 100 } as const;

let temp: TempDir;
let registry: Registry;
let fleet: LiveFleet;
let runtime: Runtime;
let fakes: FakeOpencode[];

beforeEach(async () => {
  temp = tempDir('operations');
  registry = await openRegistry(`${temp.path}/registry`);
  fleet = testFleet(testRegistrySource(registry.path));
  runtime = testRuntime(fleet, `${temp.path}/requests`);
  fakes = [];
});
afterEach(async () => {
  await fleet.close();
  await Promise.all(fakes.map((fake) => fake.close()));
  await temp.close();
});

async function addFake(
  name: string,
  options: Parameters<typeof startFakeOpencode>[0] & { host?: string; cwd?: string } = {},
): Promise<FakeOpencode> {
  const server = await startFakeOpencode({ reply: (text) => `re: ${text}`, ...options });
  fakes.push(server);
  await registry.add(
    { name, hostname: options.host ?? 'far', port: server.port, localPort: 4096, cwd: options.cwd ?? server.directory },
    { file: `${name}-${server.port}.json` },
  );
  return server;
}

/** Starts an instance and waits until the fleet knows it. */
async function startWorker(options?: Parameters<typeof addFake>[1]): Promise<FakeOpencode> {
  const server = await addFake('worker', options);
  fleet.start();
  await fleet.ready();
  return server;
}

const promptCount = (server: FakeOpencode): number => server.state.prompts.length;

test('a message for a machine that is gone never reaches another machine that registers the same name', async () => {
  const first = await addFake('work', { host: 'one' });
  fleet.start();
  expect((await send(runtime, { instance: 'work', message: 'hello' }, testCall())).data.outcome).toBe('completed');
  await registry.remove(`work-${first.port}`);
  const second = await addFake('work', { host: 'two' });
  await until('the second is listed', async () =>
    (await refreshInstances(runtime, LIST, testCall())).data.instances.some(({ host }) => host === 'two'),
  );
  await expect(send(runtime, { instance: 'work', message: 'for one only' }, testCall())).rejects.toThrow(/gone/);
  expect(promptCount(second)).toBe(0);
  // The name in the listing resolves.
  const { instances: rows } = (await listInstances(runtime, LIST, testCall())).data;
  expect(rows.map(({ name }) => name)).toEqual(['work@two']);
  await send(runtime, { instance: 'work@two', message: 'for two' }, testCall());
  expect(promptCount(second)).toBe(1);
});

describe('listings', () => {
  test('instances asks the servers at each call, so a busy session and a pending permission show', async () => {
    const server = await startWorker();
    const session = server.addSession({ title: 'a title' });
    expect((await instances(runtime, LIST, testCall())).data.instances[0]).toMatchObject({
      state: 'idle',
      session: { id: session.id, title: 'a title' },
    });
    server.state.statuses.set(session.id, { type: 'busy' });
    server.addPermission({ sessionID: session.id });
    expect((await listInstances(runtime, LIST, testCall())).data.instances[0]).toMatchObject({ state: 'idle' });
    const [row] = (await instances(runtime, LIST, testCall())).data.instances;
    expect(row).toMatchObject({
      state: 'waiting',
      waiting: [expect.stringMatching(/^permission per_\w+: «bash "ls"»$/)],
    });
    expect(row).not.toHaveProperty('stale_seconds');
  });

  test('a large fleet is listed in pages of a few kilobytes, with counts, the most urgent instances first', async () => {
    const fakes = await Promise.all(
      Array.from({ length: 30 }, (_, index) => addFake(`project-${String(index).padStart(2, '0')}`)),
    );
    const [, , busy, , waiting] = fakes;
    for (const one of fakes) one.addSession({ title: 'A title of some length, as titles are, and a little more' });
    busy?.state.statuses.set(busy.addSession().id, { type: 'busy' });
    const session = waiting?.addSession();
    if (session !== undefined) {
      waiting?.state.statuses.set(session.id, { type: 'busy' });
      waiting?.addPermission({ sessionID: session.id });
    }
    fleet.start();
    const first = await instances(runtime, { offset: 0 }, testCall());
    expect(first.data).toMatchObject({ total: 30, states: '1 waiting, 1 busy, 28 idle' });
    expect(first.text).toMatch(/^30 instances: 1 waiting, 1 busy, 28 idle\n/);
    expect(first.text).toContain(`offset ${first.data.next_offset}`);
    expect(Buffer.byteLength(first.text + JSON.stringify(first.data))).toBeLessThan(8_000);
    const names: string[] = [];
    for (let offset: number | undefined = 0; offset !== undefined;) {
      const { data } = await listInstances(runtime, { offset }, testCall());
      names.push(...data.instances.map(({ name }) => name));
      offset = data.next_offset;
    }
    expect(names.slice(0, 3)).toEqual(['project-04', 'project-02', 'project-00']);
    expect(new Set(names).size).toBe(30);
    expect((await listInstances(runtime, { offset: 0, limit: 30 }, testCall())).data.instances).toHaveLength(30);
    expect((await listInstances(runtime, { offset: 0, match: 'PROJECT-1' }, testCall())).data.total).toBe(10);
  });

  test('an instance with hundreds of requests and sessions gives a small result', async () => {
    const server = await addFake('flooded');
    for (let index = 0; index < 200; index += 1) {
      const { id } = server.addSession({ title: `session ${index}` });
      server.state.statuses.set(id, { type: 'busy' });
      server.addPermission({ sessionID: id });
    }
    fleet.start();
    await runtime.fleet.ready();
    const before = server.count('GET /session/:id');
    const { data } = await getStatus(runtime, { instance: 'flooded' }, testCall());
    expect(data).toMatchObject({ state: 'waiting' });
    expect([data.waiting.length, data.waiting.at(-1)]).toEqual([21, '180 more']);
    expect(server.count('GET /session/:id') - before).toBeLessThan(60);
    const asked = server.count('GET /session/:id');
    await wait(runtime, { instances: ['flooded'], for: 'any', timeout_seconds: 1 }, testCall());
    expect(server.count('GET /session/:id') - asked).toBeLessThan(60);
  });

  test('no instance counts as missing before the first scan has ended', async () => {
    expect((await listInstances(runtime, LIST, testCall())).text).toMatch(
      /^No OpenCode instance is known yet: the first scan of local-relay has not ended; call instances again\./,
    );
    fleet.start();
    await fleet.ready();
    expect((await listInstances(runtime, LIST, testCall())).text).toMatch(/^No OpenCode instance was found \(searched/);
  });

  test('a source whose system is missing on this machine is named, without advice to install it', async () => {
    await rm(registry.path, { recursive: true });
    fleet.start();
    await fleet.ready();
    const { data, text } = await listInstances(runtime, LIST, testCall());
    expect(text).toContain('(searched: no source; not in use here: local-relay)');
    expect([data.notes, text.includes('note:')]).toEqual([[], false]);
  });

  test('unusable files in a registry are in the notes', async () => {
    await registry.writeRaw('half.json', '{"name":');
    fleet.start();
    const { data, text } = await instances(runtime, LIST, testCall());
    expect(data.notes.join()).toMatch(/half\.json.*JSON/);
    expect(text).toMatch(/note: .*half\.json/);
  });
});

describe('session states', () => {
  type Setup = (server: FakeOpencode, id: string) => void | Promise<void>;
  const begin = (server: FakeOpencode, id: string): void => server.state.begin(id, 'do it');

  /** Records a long silence, as a call that followed the session would. */
  function recordStalled(server: FakeOpencode, id: string): void {
    const [instance] = fleet.snapshot().instances;
    const newest = server.state.messages.get(id)?.at(-1) as Message | undefined;
    if (instance === undefined || newest === undefined) throw new Error('nothing runs yet');
    const lastSign = { atMs: 1_000, stage: stageOf([newest]), stalled: true };
    remember(runtime, instance, { id } as Session, { lastSign });
  }

  test.each<[string, Setup]>([
    ['idle', () => {}],
    ['idle', (server, id) => (begin(server, id), server.state.finish(id, 'done'))],
    ['idle', (server, id) => (begin(server, id), server.state.abort(id))],
    ['starting', (server, id) => void server.state.ask(id, 'do it')],
    ['busy', begin],
    [
      'retrying',
      (server, id) => void server.state.statuses.set(id, { type: 'retry', attempt: 2, message: 'x', next: 0 }),
    ],
    ['waiting', (server, id) => (begin(server, id), void server.addPermission({ sessionID: id }))],
    ['stalled', (server, id) => (begin(server, id), recordStalled(server, id))],
    ['interrupted', (server, id) => (begin(server, id), void server.state.statuses.delete(id))],
  ])('every tool shows %s', async (state, setUp) => {
    const server = await startWorker();
    const { id } = server.addSession({ title: 'a title' });
    await setUp(server, id);
    const listed = (await instances(runtime, LIST, testCall())).data;
    const shown = [
      listed.states.split(' ').at(-1),
      listed.instances[0]?.state,
      (await listInstances(runtime, LIST, testCall())).data.instances[0]?.state,
      (await getStatus(runtime, { instance: 'worker' }, testCall())).data.state,
      (await listSessions(runtime, { instance: 'worker' }, testCall())).data.sessions[0]?.state,
      (await read(runtime, { instance: 'worker', message_limit: 1 }, testCall())).data.session.state,
    ];
    expect(shown).toEqual(shown.map(() => state));
    const { sessions } = (await getStatus(runtime, { instance: 'worker' }, testCall())).data;
    expect(sessions.map((session) => session.state)).toEqual(state === 'idle' ? [] : [state]);
  });

  test('a session that another process with the same home runs is busy there, and interrupted once that process has ended', async () => {
    const [one, other] = [await addFake('one'), await addFake('other')];
    const { id } = one.addSession();
    begin(one, id);
    other.addSession({ id });
    other.state.messages.set(id, one.state.messages.get(id) ?? []);
    fleet.start();
    const { data } = await instances(runtime, LIST, testCall());
    expect(data.instances.map(({ name, state }) => `${name} ${state}`)).toEqual(['one busy', 'other idle']);
    await one.close();
    expect((await instances(runtime, LIST, testCall())).data.states).toBe('1 interrupted, 1 offline');
  });

  test('a message to a session that another terminal has open is reported to the caller and in that terminal', async () => {
    const [one, other] = [await addFake('one'), await addFake('other')];
    const elsewhere = await addFake('elsewhere', { directory: '/elsewhere' });
    const stranger = await addFake('stranger', { host: 'another' });
    const { id } = one.addSession({ title: 'Shared' });
    for (const server of [other, elsewhere, stranger]) server.addSession({ id, directory: one.directory });
    // A process of another home on the same machine and in the same directory.
    const apart = await addFake('apart');
    fleet.start();
    const sent = await send(runtime, { instance: 'one', session_id: id, message: 'hello' }, testCall());
    expect(sent.data).toMatchObject({ outcome: 'completed', also_open_in: ['other'] });
    expect(sent.text).toContain('(the session may also be open in other,');
    expect(other.state.toasts).toEqual([
      `${one.directory}: A message was sent to session "Shared" through one; opencode shows it here once it is started again (opencode -c)`,
    ]);
    for (const server of [one, elsewhere, stranger, apart]) expect(server.state.toasts).toEqual([]);
    // A hanging process does not delay the answer: its request is still open.
    other.override('GET /session/:id', { kind: 'hang' });
    const again = await send(runtime, { instance: 'one', session_id: id, message: 'again' }, testCall());
    // An aborted request would show at the other end by now.
    for (let turns = 0; turns < 100; turns += 1) await nextTurn();
    expect([again.data.outcome, again.data.also_open_in, other.load.current]).toEqual(['completed', undefined, 1]);
    const alone = await send(runtime, { instance: 'elsewhere', message: 'hello' }, testCall());
    expect(alone.data).not.toHaveProperty('also_open_in');
  });

  test('a session that began during the listing is busy', async () => {
    const server = await startWorker();
    const { id } = server.addSession();
    begin(server, id);
    server.override('GET /session/status', { kind: 'answer', body: {} }, 1);
    expect((await listSessions(runtime, { instance: 'worker' }, testCall())).data.sessions).toMatchObject([
      { state: 'busy' },
    ]);
  });

  test('each directory that an opencode works in is an instance with its own state', async () => {
    const server = await startWorker();
    server.addSession({ title: 'own' });
    const { id } = server.addSession({ directory: '/elsewhere', title: 'other' });
    begin(server, id);
    const { id: permission } = server.addPermission({ sessionID: id });
    const rows = async (): Promise<readonly (string | undefined)[][]> =>
      (await instances(runtime, LIST, testCall())).data.instances.map(({ name, state, directory, session }) => [
        name,
        state,
        directory,
        session?.title,
      ]);
    const own = ['worker', 'idle', server.directory, 'own'];
    expect(await rows()).toEqual([['worker-elsewhere', 'waiting', '/elsewhere', 'other'], own]);
    const status = await getStatus(runtime, { instance: 'worker' }, testCall());
    expect(status.data).toMatchObject({
      state: 'idle',
      sessions: [],
      elsewhere: ['worker-elsewhere: waiting, in /elsewhere'],
    });
    expect(status.text).toContain(status.data.elsewhere?.[0]);
    expect((await getStatus(runtime, { instance: 'worker-elsewhere' }, testCall())).data).toMatchObject({
      state: 'waiting',
      directory: '/elsewhere',
      sessions: [{ id, title: 'other', state: 'waiting' }],
    });
    const sessions = (await listSessions(runtime, { instance: 'worker-elsewhere' }, testCall())).data.sessions;
    expect(sessions.map(({ title, state }) => [title, state])).toEqual([['other', 'waiting']]);
    const ofProject = (await listSessions(runtime, { instance: 'worker' }, testCall())).data.sessions;
    expect(ofProject.map(({ title, state }) => `${title} ${state}`).toSorted()).toEqual(['other waiting', 'own idle']);
    // Any name of the server works, since the id identifies the request.
    const settled = respond(runtime, { instance: 'worker', request_id: permission, reply: 'once' }, testCall());
    await until('the answer', () => server.state.permissions.size === 0);
    server.state.finish(id, 'done');
    expect((await settled).data).toMatchObject({ outcome: 'completed', text: 'done' });
    const created = (await createSession(runtime, { instance: 'worker-elsewhere', title: 'next' }, testCall())).data
      .session;
    expect(created.directory).toBe('/elsewhere');
  });

  test('wait also waits for a starting session', async () => {
    const server = await startWorker();
    const { id } = server.addSession();
    server.state.ask(id, 'do it');
    const waiting = wait(runtime, { for: 'any' }, testCall());
    await until('the session to be followed', () => server.openStreams > 0);
    server.state.begin(id, 'now');
    server.state.finish(id, 'done');
    expect((await waiting).data.turns).toMatchObject([{ instance: 'worker', outcome: 'completed' }]);
  });

  test('a session of an unused directory is not read', async () => {
    const server = await startWorker();
    const old = { created: 1, updated: 1 };
    const session = server.addSession({ directory: '/elsewhere' });
    server.state.begin(session.id, 'do it');
    server.state.statuses.clear();
    server.state.sessions.set(session.id, { ...session, time: old });
    server.addSession({ title: 'recent' });
    const { sessions } = (await listSessions(runtime, { instance: 'worker' }, testCall())).data;
    expect(sessions.map(({ state, directory: where }) => [where, state])).toEqual([
      [server.directory, 'idle'],
      ['/elsewhere', 'unknown'],
    ]);
    expect(server.count('GET /session/status')).toBeGreaterThan(0);
  });

  test('thirty interrupted sessions give a small result, with the reason once', async () => {
    const server = await startWorker();
    for (let index = 0; index < 30; index += 1) {
      const { id } = server.addSession({ title: `A title of some length, as titles are: ${index}` });
      begin(server, id);
      server.state.statuses.delete(id);
    }
    const { data, text } = await listSessions(runtime, { instance: 'worker' }, testCall());
    expect(data.sessions.map(({ state }) => state)).toEqual(Array(30).fill('interrupted'));
    expect(text.match(/never completed/g)).toHaveLength(1);
  });
});

test('a message with a request_id that never arrived is sent again with the same ids, agent and model', async () => {
  const server = await startWorker();
  const { id: sessionId } = server.addSession();
  const lost = { sessionId, messageId: newId('msg'), partId: newId('prt'), text: 'hello' };
  // A record as earlier versions wrote it, under the listed name.
  const digest = (text: string): string => createHash('sha256').update(text).digest('hex');
  const { text, ...ids } = lost;
  await mkdir(`${temp.path}/requests`);
  await writeFile(
    `${temp.path}/requests/${digest('worker\0r-1')}.json`,
    JSON.stringify({ ...ids, digest: digest(text) }),
  );
  const again = { instance: 'worker', message: 'hello', request_id: 'r-1', agent: 'plan', model: 'fake/fake-model' };
  for (let times = 0; times < 2; times += 1)
    expect((await send(runtime, again, testCall())).data).toMatchObject({ outcome: 'completed', text: 're: hello' });
  expect(server.state.prompts).toMatchObject([
    {
      sessionID: sessionId,
      body: {
        messageID: lost.messageId,
        parts: [{ id: lost.partId, text: 'hello' }],
        agent: 'plan',
        model: { providerID: 'fake', modelID: 'fake-model' },
      },
    },
  ]);
});

test('an abort of an idle session changes nothing and says so', async () => {
  const server = await addFake('quiet');
  const { id: session_id } = server.addSession();
  fleet.start();
  const { data } = await abortSession(runtime, { instance: 'quiet', session_id }, testCall());
  expect(data).toMatchObject({ aborted: false, outcome: 'idle' });
  expect(server.count('POST /session/:id/abort')).toBe(0);
});

describe('an instance that cannot be driven', () => {
  test('that is offline is reported by get_status; send and read fail with the attempt and the advice', async () => {
    const server = await addFake('gone-away');
    fleet.start();
    await instances(runtime, LIST, testCall());
    await server.close();
    fakes.splice(0);
    expect((await getStatus(runtime, { instance: 'gone-away' }, testCall())).data).toMatchObject({
      state: 'offline',
      reason: expect.stringContaining('ECONNREFUSED') as string,
    });
    await expect(send(runtime, { instance: 'gone-away', message: 'x' }, testCall())).rejects.toThrow(
      /ECONNREFUSED.*refresh_instances/s,
    );
    await expect(read(runtime, { instance: 'gone-away', message_limit: 10 }, testCall())).rejects.toThrow(
      /ECONNREFUSED/,
    );
  });

  test('that is untrusted is listed with the whole command to run', async () => {
    const file = `${'x'.repeat(90)}.json`;
    const entry = { name: 'open', hostname: 'far', port: 4096, localPort: 4096, cwd: '/d' };
    await registry.add(entry, { file });
    await chmod(`${registry.path}/${file}`, 0o666);
    fleet.start();
    const [row] = (await instances(runtime, LIST, testCall())).data.instances;
    expect(row).toMatchObject({ state: 'untrusted', reason: expect.stringContaining(`go-w ${registry.path}/${file}`) });
  });

  test.each([
    ['locked', { password: 'unknown to us' }, /opencode-mcp doctor worker/],
    ['unsupported', { version: '1.2.3' }, /1\.2\.3/],
  ])('that is %s receives nothing, and the error says why', async (state, options, reason) => {
    const server = await startWorker(options);
    expect((await instances(runtime, LIST, testCall())).data.instances).toMatchObject([{ state }]);
    await expect(send(runtime, { instance: 'worker', message: 'x' }, testCall())).rejects.toThrow(reason);
    expect(promptCount(server)).toBe(0);
  });
});

describe('a long answer that a call joins in the middle', () => {
  /** Long, with no repetition. */
  const words = (name: string): string => Array.from({ length: 1_500 }, (_, index) => `${name}${index}`).join(' ');

  test.each(['respond', 'wait'] as const)('%s gives the offset for read', async (tool) => {
    const server = await addFake('worker', { reply: () => undefined });
    fleet.start();
    const sent = await send(
      runtime,
      { instance: 'worker', message: 'x', async: true, session_id: server.addSession().id },
      testCall(),
    );
    const sessionID = sent.data.session?.id ?? '';
    const messages = server.state.messages.get(sessionID) ?? [];
    const answer = messages.at(-1);
    if (answer === undefined) throw new Error('nothing runs');
    const part = { id: newId('prt'), sessionID, messageID: answer.info.id, type: 'text', text: words('before') };
    const now = Date.now();
    // opencode stores a part when it ends.
    messages.splice(-1, 1, { ...answer, parts: [{ ...part, time: { start: now, end: now } }] });
    if (tool === 'respond') server.addPermission({ sessionID });
    const MESSAGES = 'GET /session/:id/message';
    const readsBefore = server.count(MESSAGES);
    const joined =
      tool === 'respond'
        ? respond(runtime, { instance: 'worker', reply: 'once' }, testCall())
        : wait(
            runtime,
            { instances: ['worker'], for: 'all' },
            testCall({ deadlineMs: systemClock.monotonic() + 2_000 }),
          );
    // The call has read the earlier messages; respond does so before it replies.
    const reads = tool === 'respond' ? 1 : 2;
    await until(
      'the turn to be followed',
      () => server.count(MESSAGES) >= readsBefore + reads && server.state.permissions.size === 0,
    );
    server.state.say(sessionID, words('after'));
    if (tool === 'respond') server.state.finish(sessionID, ' END');
    const { data } = await joined;
    if (tool === 'wait') server.state.finish(sessionID, ' END');
    const { text = '', cut, message_id = '' } = data.turns?.[0] ?? data;
    const [head = ''] = text.split('\n[…');
    expect(head).toContain('after0');
    const page = (
      await read(runtime, { instance: 'worker', message_limit: 1, message_id, offset: cut?.next_offset }, testCall())
    ).data.messages[0];
    const whole = `${words('before')}\n\n${words('after')} END`;
    expect(whole.indexOf(page?.text ?? '')).toBe(whole.indexOf(head) + head.length);
    expect(page?.cut?.total).toBe(whole.length);
    if (tool === 'respond') expect(cut?.total).toBe(whole.length);
  });
});

describe('another directory of the same opencode', () => {
  /** A server named as `opencode-connected` would; its session in `/wt/prod` waits for a permission. */
  async function startWorktree(): Promise<{ server: FakeOpencode; id: string; request: string }> {
    const server = await addFake('laptop-app', { host: 'laptop', directory: '/home/ada/app' });
    const { id } = server.addSession({ directory: '/wt/prod' });
    server.state.statuses.set(id, { type: 'busy' });
    const request = server.addPermission({ sessionID: id, permission: 'bash', patterns: ['make deploy'] }).id;
    fleet.start();
    await instances(runtime, LIST, testCall());
    return { server, id, request };
  }

  test.each([
    ['laptop-prod', 'laptop-app'],
    ['laptop-prod@laptop', 'laptop-app'],
    ['laptop-wt-prod', 'laptop-app'],
    ['laptop-app', 'laptop-prod'],
    ['laptop-app@laptop:4096', 'laptop-prod'],
  ])('a rule for %s also holds if its request is answered as %s', async (instance, answeredAs) => {
    const { server, request } = await startWorktree();
    runtime = { ...runtime, approvals: { approve: 'model', approvalRules: [{ instance, approve: 'never' }] } };
    const answered = respond(runtime, { instance: answeredAs, request_id: request, reply: 'once' }, testCall());
    await expect(answered).rejects.toThrow('approve: never');
    expect(server.count('POST /permission/:id/reply')).toBe(0);
  });

  test('stays listed while its server is offline', async () => {
    const { server } = await startWorktree();
    await server.close();
    const { data } = await instances(runtime, LIST, testCall());
    expect(data.instances.map(({ name, state, directory }) => [name, state, directory])).toEqual([
      ['laptop-app', 'offline', '/home/ada/app'],
      ['laptop-prod', 'offline', '/wt/prod'],
    ]);
  });

  test('the process that works on a session is found on its machine, whatever its host name and project', async () => {
    const owner = await addFake('web', { host: 'Laptop.local', directory: '/home/ada/web' });
    const { id } = owner.addSession({ directory: '/home/ada/app' });
    owner.state.begin(id, 'do it');
    const other = await addFake('app', { host: 'laptop', directory: '/home/ada/app' });
    other.addSession({ id, directory: '/home/ada/app' });
    other.state.messages.set(id, owner.state.messages.get(id) ?? []);
    fleet.start();
    const sent = send(runtime, { instance: 'app', session_id: id, message: 'twice?' }, testCall());
    await expect(sent).rejects.toThrow('web, another opencode with the same sessions, works on this one');
    expect(promptCount(other)).toBe(0);
  });

  test('wait without names returns waiting instances first, and counts the instances after the thirtieth', async () => {
    const warnings: Error[] = [];
    const addWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', addWarning);
    onTestFinished(() => void process.off('warning', addWarning));
    const server = await addFake('laptop-app', { host: 'laptop', directory: '/home/ada/app' });
    for (let index = 10; index < 42; index += 1) {
      const { id } = server.addSession({ directory: `/wt/w${index}` });
      server.state.begin(id, 'do it');
      if (index === 41) server.addPermission({ sessionID: id });
    }
    fleet.start();
    const { data, text } = await wait(runtime, { for: 'any' }, testCall());
    expect(data.outcome).toBe('1 waiting, 29 running');
    expect(text).toContain('2 more work and were not waited for');
    // Each turn listens to the call's signal; Node warns of many listeners as a leak.
    expect(warnings).toEqual([]);
  });
});
