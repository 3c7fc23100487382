import { join } from 'node:path';
import { mkdir, rm, writeFile } from 'node:fs/promises';

import { beforeEach, describe, expect, it, onTestFinished, test } from 'vitest';

import { runSessions, type SessionsOptions, type SessionsReport } from '../../../src/connected/sessions/command.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../../rig/fake/fake-opencode.ts';
import { stringsIn, unsafeIn } from '../../rig/hostile-words.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { openRemains, outputOf, type Remains } from '../cleanup/remains.ts';

interface Result {
  readonly report: SessionsReport;
  readonly text: string;
  readonly code: number;
}

async function runBothFormats(settings: SessionsOptions['settings']): Promise<Result> {
  const { text, code } = await outputOf((io) => runSessions({ settings, json: false, ...io }));
  const { text: json } = await outputOf((io) => runSessions({ settings, json: true, ...io }));
  return { report: JSON.parse(json) as SessionsReport, text, code };
}

async function openFake(options: FakeOptions = {}): Promise<FakeOpencode> {
  const fake = await startFakeOpencode({ directory: '/home/user/project', ...options });
  onTestFinished(() => fake.close());
  return fake;
}

describe('sessions', () => {
  let remains: Remains;
  let fake: FakeOpencode;

  beforeEach(async () => {
    remains = await openRemains();
    fake = await openFake();
  });

  it('lists each session once, newest first, with the state in the process that runs it', async () => {
    // Another process of the same user in the same project knows the same sessions.
    const other = await openFake();
    const nowMs = Date.now();
    const [done, busy] = [
      { title: 'A finished one', time: { created: nowMs - 9_000, updated: nowMs - 8_000 } },
      { title: 'A busy one', time: { created: nowMs - 7_000, updated: nowMs - 6_000 } },
    ].map((fields) => other.addSession(fake.addSession(fields)));
    other.state.begin(busy?.id ?? '', 'go on');
    await remains.register('first', { port: fake.port });
    await remains.register('second', { port: other.port });
    const { report, text, code } = await runBothFormats(remains.places());
    const common = {
      directory: '/home/user/project',
      updated: expect.stringMatching(/^\d{4}-/),
      instances: ['first', 'second'],
    };
    expect(report.sessions).toEqual([
      { id: busy?.id, title: 'A busy one', state: 'busy', ...common },
      { id: done?.id, title: 'A finished one', state: 'idle', ...common },
    ]);
    expect(text).toMatch(/^busy +\d+ s +A busy one\n {2}first, second ses_\w+ \S+\nidle +\d+ s +A finished one\n/);
    expect(Math.max(...text.split('\n').map((line) => Array.from(line).length))).toBeLessThanOrEqual(80);
    expect(report.missing).toEqual([]);
    expect(code).toBe(0);
  });

  it('reports which instances could not list their sessions, and why', async () => {
    await remains.register('dead');
    await remains.register('locked', { port: (await openFake({ password: 'a secret' })).port });
    const { report, text, code } = await runBothFormats(remains.places());
    expect(report.missing).toEqual([
      { instance: 'dead', reason: expect.stringContaining('nothing listens at http://127.0.0.1:') },
      { instance: 'locked', reason: expect.stringContaining('HTTP 401') },
    ]);
    expect(text.replace(/\n/g, ' ')).toContain('no sessions of dead: nothing listens at');
    expect(code).toBe(1);
  });

  it('gives up on an instance that hangs, and lists the others', async () => {
    const hanging = await openFake();
    hanging.override('GET /session', { kind: 'hang' });
    fake.addSession({ title: 'One' });
    await remains.register('hung', { port: hanging.port });
    await remains.register('fine', { port: fake.port });
    const settings = remains.places();
    const { text, code } = await outputOf((io) => runSessions({ settings, json: true, limitMs: 2_000, ...io }));
    const report: SessionsReport = JSON.parse(text);
    expect(report.sessions.map(({ title }) => title)).toEqual(['One']);
    expect(report.missing).toEqual([{ instance: 'hung', reason: 'no answer within 2 s' }]);
    expect(code).toBe(1);
  });

  it('prints JSON whose strings are safe to show', async () => {
    const path = join(remains.places().registryDir.path, '\u001b[2J\u202e');
    await writeFile(path, '');
    const { report } = await runBothFormats(remains.places({ registryDir: { path, explicit: true } }));
    expect(report.missing).toHaveLength(1);
    for (const [key, value] of stringsIn(report)) expect(unsafeIn(value), key).toBe(undefined);
  });

  it('requests no sessions of an instance whose directory differs from the registered one', async () => {
    const other = await openFake({ directory: '/home/user/own' });
    await remains.register('other', { port: other.port, fields: { cwd: '/home/user/registered' } });
    const { report } = await runBothFormats(remains.places());
    const counts = [other.count('GET /session'), other.count('GET /session/status')];
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
    const { report } = await runBothFormats(remains.places());
    expect(report.sessions.map(({ directory, state }) => `${directory} ${state}`).toSorted()).toEqual([
      '/home/user/other idle',
      '/home/user/project interrupted',
    ]);
  });

  it('requests permissions and questions only if a session runs', async () => {
    fake.addSession({ title: 'One' });
    await remains.register('app', { port: fake.port });
    expect((await runBothFormats(remains.places())).report.sessions).toMatchObject([{ title: 'One' }]);
    expect([fake.count('GET /permission'), fake.count('GET /question')]).toEqual([0, 0]);
  });

  it('shows a session that waits for a person as waiting', async () => {
    const { id: sessionID } = fake.addSession({ title: 'One' });
    fake.state.begin(sessionID, 'do it');
    fake.state.addPermission({ sessionID, metadata: { command: 'rm -rf build' } });
    await remains.register('app', { port: fake.port });
    const { report, text } = await runBothFormats(remains.places());
    expect(report.sessions).toMatchObject([{ state: 'waiting', reason: expect.stringContaining('rm -rf build') }]);
    expect(text).toMatch(/^waiting +/);
  });

  it('prints no terminal control characters of a title', async () => {
    fake.addSession({ title: '\u001b[2Jevil\u202e\nidle 1 s fake' });
    await remains.register('app', { port: fake.port });
    const { text } = await runBothFormats(remains.places());
    expect(text.split('\n')[0]).toMatch(/^idle +\S+ \S+ +evil idle 1 s fake$/);
  });

  it('reports that there are no sessions, and fails if the registry directory cannot be read', async () => {
    expect(await runBothFormats(remains.places())).toMatchObject({ text: 'No sessions.\n', code: 0 });
    await rm(remains.registry, { recursive: true });
    expect(await runBothFormats(remains.places())).toMatchObject({ text: 'No sessions.\n', code: 0 });
    await writeFile(remains.registry, 'no directory');
    expect(await runBothFormats(remains.places())).toMatchObject({ code: 1 });
  });
});

test('an OpenCode 2 service lists the sessions of all its directories', async () => {
  const remains = await openRemains();
  await using fake = await startFakeOpencode2({ password: 'of the tunnel' });
  await remains.register('laptop:service', { id: 'id-service', port: fake.port, fields: { cwd: null } });
  const folder = join(remains.registry, '.credentials');
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFile(join(folder, 'id-service'), 'of the tunnel\n', { mode: 0o600 });
  for (const directory of ['/src/one', '/src/two']) fake.addSession({ directory });
  const { report, code } = await runBothFormats(remains.places());
  expect(report.sessions.map(({ directory }) => directory).toSorted()).toEqual(['/src/one', '/src/two']);
  expect(new Set(report.sessions.map(({ state }) => state))).toEqual(new Set(['idle']));
  expect(report.missing).toEqual([]);
  expect(code).toBe(0);
  // Listing sessions makes the service load no directory.
  expect([...fake.loaded]).toEqual([]);
});
