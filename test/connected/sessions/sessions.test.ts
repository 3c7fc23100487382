import { join } from 'node:path';
import { mkdir, rm, writeFile } from 'node:fs/promises';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';

import { runSessions, type SessionsReport } from '../../../src/connected/sessions/command.ts';
import { announce } from '../../rig/announce.ts';
import { startFakeOpencode, type FakeOpencode } from '../../rig/fake-opencode.ts';
import { stringsIn, unsafeIn } from '../../rig/hostile-words.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { startOpencode, type Opencode } from '../../rig/opencode.ts';

import { createRealSession } from '../../rig/real-session.ts';

import { type ScriptedModel, startScriptedModel } from '../../rig/scripted-model.ts';
import { until } from '../../rig/wait.ts';
import { openRemains, type Remains } from '../cleanup/remains.ts';

const never = new AbortController().signal;

async function sessions(
  remains: Remains,
): Promise<{ readonly report: SessionsReport; readonly text: string; readonly code: number }> {
  const print = async (json: boolean): Promise<{ text: string; code: number }> => {
    let text = '';
    const code = await runSessions({ settings: remains.places(), json, out: (more) => (text += more), signal: never });
    return { text, code };
  };
  const { text, code } = await print(false);
  const report: SessionsReport = JSON.parse((await print(true)).text);
  return { report, text, code };
}

describe.skipIf(isMissing(PINNED_OPENCODE))('sessions of real opencodes', () => {
  let model: ScriptedModel;
  let first: Opencode;
  let second: Opencode;
  let remains: Remains;

  beforeAll(async () => {
    model = await startScriptedModel();
    first = await startOpencode({ model, password: 'a secret' });
    // Another process of the same person in the same project: it knows the same sessions.
    second = await startOpencode({ model, home: first.home, directory: first.directory });
    announce(first);
    announce(second);
  });
  afterAll(async () => {
    await second?.close();
    await first?.close();
    await model?.close();
  });
  beforeEach(async () => {
    remains = await openRemains();
    const fields = { cwd: first.directory };
    await remains.register('first', { port: first.port, id: 'id-first', password: true, fields });
    await remains.register('second', { port: second.port, fields });
  });
  afterEach(async () => {
    await remains[Symbol.asyncDispose]();
  });

  it('lists each session once, newest first, with the state in the process that runs it', async () => {
    const done = await createRealSession(first, 'A finished one');
    await done.prompt('echo: hello');
    await done.settled();
    const busy = await createRealSession(second, 'A busy one');
    await busy.prompt('gate mid-way: go on');
    await model.waitForGate('mid-way');
    await until('the session to be busy', async () => (await busy.status())?.type === 'busy');
    const { report, text, code } = await sessions(remains);
    model.release('mid-way');
    await busy.settled();
    expect(report.sessions).toEqual([
      {
        id: busy.id,
        title: 'A busy one',
        directory: first.directory,
        updated: expect.stringMatching(/^\d{4}-/),
        state: 'busy',
        instances: ['first', 'second'],
      },
      {
        id: done.id,
        title: 'A finished one',
        directory: first.directory,
        updated: expect.stringMatching(/^\d{4}-/),
        state: 'idle',
        instances: ['first', 'second'],
      },
    ]);
    expect(text).toMatch(/^busy +\d+ s +A busy one\n {2}first, second ses_\w+ \S+\nidle +\d+ s +A finished one\n/);
    expect(Math.max(...text.split('\n').map((line) => Array.from(line).length))).toBeLessThanOrEqual(80);
    expect(report.missing).toEqual([]);
    expect(code).toBe(0);
  });

  it('names the instances without sessions, and why', async () => {
    await remains.register('dead');
    await rm(join(remains.registry, '.credentials', 'id-first'));
    const { report, text, code } = await sessions(remains);
    expect(report.missing).toEqual([
      { instance: 'dead', reason: expect.stringContaining('nothing listens at http://127.0.0.1:') },
      { instance: 'first', reason: expect.stringContaining('HTTP 401') },
    ]);
    expect(text.replace(/\n/g, ' ')).toContain('no sessions of dead: nothing listens at');
    expect(code).toBe(1);
  });
});

describe('sessions', () => {
  let remains: Remains;
  let fake: FakeOpencode;

  beforeEach(async () => {
    remains = await openRemains();
    fake = await startFakeOpencode({ directory: '/home/user/project' });
  });
  afterEach(async () => {
    await fake.close();
    await remains[Symbol.asyncDispose]();
  });

  it('gives up on an instance that hangs, and lists the others', async () => {
    const hung = await startFakeOpencode({ directory: '/home/user/project' });
    hung.override('GET /session', { kind: 'hang' });
    fake.addSession({ title: 'One' });
    await remains.register('hung', { port: hung.port });
    await remains.register('fine', { port: fake.port });
    let text = '';
    const code = await runSessions({
      settings: remains.places(),
      json: true,
      out: (more) => (text += more),
      signal: never,
      limitMs: 3_000,
    });
    await hung.close();
    const report: SessionsReport = JSON.parse(text);
    expect(report.sessions.map(({ title }) => title)).toEqual(['One']);
    expect(report.missing).toEqual([{ instance: 'hung', reason: 'no answer within 3 s' }]);
    expect(code).toBe(1);
  });

  it('prints JSON whose strings are safe to show', async () => {
    const path = join(remains.places().registryDir.path, '\u001b[2J\u202e');
    await writeFile(path, '');
    let text = '';
    const settings = remains.places({ registryDir: { path, explicit: true } });
    await runSessions({ settings, json: true, out: (more) => (text += more), signal: never });
    const report: SessionsReport = JSON.parse(text);
    expect(report.missing).toHaveLength(1);
    for (const [key, value] of stringsIn(report)) expect(unsafeIn(value), key).toBe(undefined);
  });

  it('sends an instance no directory but its own', async () => {
    const other = await startFakeOpencode({ directory: '/home/user/own' });
    await remains.register('other', { port: other.port, fields: { cwd: '/home/user/registered' } });
    const { report } = await sessions(remains);
    const counts = [other.count('GET /session'), other.count('GET /session/status')];
    await other.close();
    expect(counts).toEqual([0, 0]);
    expect(report.missing[0]?.reason).toContain('another instance answers here');
  });

  it("marks an interrupted turn in the instance's own directory", async () => {
    for (const directory of ['/home/user/project', '/home/user/other']) {
      const { id } = fake.addSession({ directory });
      fake.state.begin(id, 'do it');
    }
    fake.state.statuses.clear();
    await remains.register('app', { port: fake.port });
    const { report } = await sessions(remains);
    expect(report.sessions.map(({ directory, state }) => `${directory} ${state}`).toSorted()).toEqual([
      '/home/user/other idle',
      '/home/user/project interrupted',
    ]);
  });

  it('asks for waiting requests only if something runs', async () => {
    fake.addSession({ title: 'One' });
    await remains.register('app', { port: fake.port });
    expect((await sessions(remains)).report.sessions).toMatchObject([{ title: 'One' }]);
    expect([fake.count('GET /permission'), fake.count('GET /question')]).toEqual([0, 0]);
  });

  it('shows a session that waits for somebody as waiting', async () => {
    const { id: sessionID } = fake.addSession({ title: 'One' });
    fake.state.begin(sessionID, 'do it');
    fake.state.addPermission({ sessionID, metadata: { command: 'rm -rf build' } });
    await remains.register('app', { port: fake.port });
    const { report, text } = await sessions(remains);
    expect(report.sessions).toMatchObject([{ state: 'waiting', reason: expect.stringContaining('rm -rf build') }]);
    expect(text).toMatch(/^waiting +/);
  });

  it('prints nothing that controls a terminal', async () => {
    fake.addSession({ title: '\u001b[2Jevil\u202e\nidle 1 s fake' });
    await remains.register('app', { port: fake.port });
    const { text } = await sessions(remains);
    expect(text.split('\n')[0]).toMatch(/^idle +\S+ \S+ +evil idle 1 s fake$/);
  });

  it('reports that there are none, and why a directory cannot be read', async () => {
    expect(await sessions(remains)).toMatchObject({ text: 'No sessions.\n', code: 0 });
    await rm(remains.registry, { recursive: true });
    expect(await sessions(remains)).toMatchObject({ text: 'No sessions.\n', code: 0 });
    await writeFile(remains.registry, 'no directory');
    expect(await sessions(remains)).toMatchObject({ code: 1 });
  });
});

test('an OpenCode 2 service lists the sessions of all its directories', async () => {
  await using remains = await openRemains();
  await using fake = await startFakeOpencode2({ password: 'of the tunnel' });
  await remains.register('laptop:service', { id: 'id-service', port: fake.port, fields: { cwd: null } });
  const folder = join(remains.registry, '.credentials');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFile(join(folder, 'id-service'), 'of the tunnel\n', { mode: 0o600 });
  for (const directory of ['/src/one', '/src/two']) fake.addSession({ directory });
  const { report, code } = await sessions(remains);
  expect(report.sessions.map(({ directory }) => directory).toSorted()).toEqual(['/src/one', '/src/two']);
  expect(new Set(report.sessions.map(({ state }) => state))).toEqual(new Set(['idle']));
  expect(report.missing).toEqual([]);
  expect(code).toBe(0);
  // The request loads nothing.
  expect([...fake.loaded]).toEqual([]);
});
