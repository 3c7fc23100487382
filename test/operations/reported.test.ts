/** Operations answer from a node service's reports on another machine's instances, without requests to the instances. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { FleetNews } from '../../src/mcp/features/fleet-news.ts';
import { isReported, type ReportedOverview } from '../../src/model/report.ts';
import { instances, listInstances, refreshInstances } from '../../src/operations/listing/instances.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { listSessions } from '../../src/operations/sessions/sessions.ts';
import { settle } from '../fleet/manual-clock.ts';
import { STALL_MS } from '../../src/turns/follower.ts';
import { tailnetStage, type TailnetStage } from '../discovery/tailscale-stage.ts';
import { busyIn, FakeNodeService, type FakeNodeServer, idleIn } from '../rig/fake/fake-node-service.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { testCall, testFleet, testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';

const DIRECTORY = '/home/ada/project';
const LIST = { offset: 0, limit: 100 } as const;

let node: FakeNodeService;
let opencode: FakeOpencode;
let stage: TailnetStage;
let fleet: LiveFleet;
let runtime: Runtime;
let changes: number;

beforeEach(async () => {
  node = new FakeNodeService();
  opencode = await startFakeOpencode({ directory: DIRECTORY, reply: (text) => `re: ${text}` });
  stage = await tailnetStage({ peers: [{ HostName: 'box' }], servers: { '100.64.0.2:4095': node.serve } });
  changes = 0;
  fleet = testFleet(stage.source, 10_000, () => (changes += 1));
  runtime = testRuntime(fleet);
});
afterEach(async () => {
  await fleet.close();
  await stage[Symbol.asyncDispose]();
  await opencode.close();
});

function webServer(...overviews: readonly ReportedOverview[]): FakeNodeServer {
  return { id: 'web', directory: DIRECTORY, url: opencode.url, overviews };
}

/** Starts the fleet on these servers; resolves once its long request is open. */
async function startFleet(...servers: readonly FakeNodeServer[]): Promise<void> {
  node.say(servers);
  fleet.start();
  await fleet.ready();
  await until('a request to be held', () => node.held.size === 1);
}

const stateOf = (name = 'web'): string | undefined =>
  fleet.snapshot().instances.find((instance) => instance.name === name)?.state;

describe("an instance with a node service's report", () => {
  test('is listed and surveyed without a request', async () => {
    const elsewhere = busyIn('/home/ada/other', { id: 'ses_other' }, 'rm -rf build');
    await startFleet(webServer(idleIn(DIRECTORY), elsewhere));
    for (const list of [instances, listInstances, instances, refreshInstances]) {
      const { data } = await list(runtime, LIST, testCall());
      expect(data.instances).toMatchObject([
        { name: 'web-other', state: 'waiting', waiting: ['permission per_1: «bash "rm -rf build"»'] },
        { name: 'web', state: 'idle', version: '1.18.33', session: { title: 'A session' } },
      ]);
      expect(data.instances.some((row) => 'stale_seconds' in row)).toBe(false);
    }
    expect((await getStatus(runtime, { instance: 'web' }, testCall())).data).toMatchObject({
      state: 'idle',
      directory: DIRECTORY,
      sessions: [],
      elsewhere: ['web-other: waiting, in /home/ada/other'],
    });
    const { data } = await getStatus(runtime, { instance: 'web-other' }, testCall());
    expect(data).toMatchObject({
      state: 'waiting',
      sessions: [{ id: 'ses_other', title: 'Fix the build', state: 'waiting' }],
      waiting: ['permission per_1: «bash "rm -rf build"»'],
    });
    expect(node.passedOn).toEqual([]);
    // At most the first request, two long ones, and one for the refresh.
    await until('a request to be held again', () => node.held.size === 1);
    expect(node.requests.filter((request) => request !== 'states')).toEqual([]);
    expect(node.requests.length).toBeLessThanOrEqual(4);
  });

  test('is asked directly if a session runs that is not in the report yet', async () => {
    const { id } = opencode.addSession({ title: 'Begun' });
    opencode.state.begin(id, 'Go');
    await startFleet(webServer({ ...busyIn(DIRECTORY, { id }), sessions: [] }));
    const { data } = await getStatus(runtime, { instance: 'web' }, testCall());
    expect(data).toMatchObject({ state: 'busy', sessions: [{ id, title: 'Begun', state: 'busy' }] });
  });

  test('shows changes while a request is held, and notifies subscribers', async () => {
    await startFleet(webServer(idleIn(DIRECTORY)));
    const updated: unknown[] = [];
    const news = new FleetNews(async (_, { uri }) => void updated.push(uri));
    news.subscribe('opencode://web', fleet.snapshot());
    const before = changes;
    node.say([webServer(busyIn(DIRECTORY, {}, 'make'))]);
    await until('the change', () => stateOf() === 'waiting');
    await until('the notification', () => changes > before);
    news.changed(() => fleet.snapshot());
    expect(updated).toEqual(['opencode://web']);
    expect(node.passedOn).toEqual([]);
  });

  test('is current even if its report is old', async () => {
    await startFleet(webServer(idleIn(DIRECTORY)));
    const later = { ...systemClock, now: () => systemClock.now() + 50_000 };
    const { data } = await listInstances({ ...runtime, clock: later }, LIST, testCall());
    expect(data.instances).toMatchObject([{ name: 'web', state: 'idle' }]);
    expect(data.instances[0]).not.toHaveProperty('stale_seconds');
  });

  test('is asked for its own sessions before a request names a directory', async () => {
    const { id } = opencode.addSession({ directory: '/home/ada/other' });
    opencode.state.begin(id, 'do it');
    await startFleet(webServer(idleIn(DIRECTORY), busyIn('/home/ada/other', { id })));
    const { data } = await listSessions(runtime, { instance: 'web' }, testCall());
    expect(data.sessions).toMatchObject([{ id, state: 'busy' }]);
    expect(node.passedOn).toContain(`GET web/session/${id}`);
    // The node service's report still counts.
    expect(fleet.snapshot().instances.map(({ overview }) => overview?.sessions?.length)).toEqual([0, 1]);
  });

  test('is offline once a call has failed, until a probe succeeds or its report changes', async () => {
    await startFleet(webServer(idleIn(DIRECTORY)));
    opencode.override('GET /global/health', { kind: 'answer', status: 503 });
    await expect(send(runtime, { instance: 'web', message: 'hello' }, testCall())).rejects.toThrow(/cannot be driven/);
    const list = async () => (await instances(runtime, LIST, testCall())).data.instances.map(({ state }) => state);
    expect(await list()).toEqual(['offline']);
    expect(await list()).toEqual(['offline']);
    node.say([webServer(busyIn(DIRECTORY, { id: 'ses_new' }))]);
    await until('the new report', () => stateOf() === 'busy');
    opencode.override('GET /global/health', undefined);
    expect(await list()).toEqual(['busy']);
  });

  test('is not driven if its node service lies about its directory, and no request contains the lie', async () => {
    opencode.addSession({ title: 'Here' });
    const lie = '/home/ada/lie';
    await startFleet({ ...webServer(idleIn(lie), busyIn('/home/ada/another-lie')), directory: lie });
    await expect(send(runtime, { instance: 'web', message: 'hello' }, testCall())).rejects.toThrow(
      /another instance answers here/,
    );
    node.say([webServer(idleIn(DIRECTORY), busyIn('/home/ada/another-lie'))]);
    await until('the other lie', () => stateOf('web-another-lie') === 'busy');
    await expect(send(runtime, { instance: 'web-another-lie', message: 'hello' }, testCall())).rejects.toThrow(
      /has no session in \/home\/ada\/another-lie/,
    );
    await listSessions(runtime, { instance: 'web' }, testCall());
    await fleet.survey();
    node.hasStates = false;
    node.cut();
    await until('the list without states', () => node.held.size === 1);
    await fleet.survey();
    expect(node.passedOn.filter((request) => request.includes('lie'))).toEqual([]);
  });
});

describe("waiting for an instance with a node service's report", () => {
  /** A turn that runs at the instance and in the report. */
  async function beginTurn(fields: Parameters<typeof busyIn>[1] = {}, command?: string): Promise<string> {
    const { id } = opencode.addSession({ title: 'Fix the build' });
    opencode.state.begin(id, 'do it');
    await startFleet(webServer(busyIn(DIRECTORY, { id, ...fields }, command)));
    return id;
  }

  test('sends no request until the turn ends, and then returns', async () => {
    const id = await beginTurn();
    const waiting = wait(runtime, { for: 'any' }, testCall());
    for (const title of ['one', 'two']) {
      const before = changes;
      node.say([webServer(busyIn(DIRECTORY, { id, title }))]);
      await until('the change to be seen', () => changes > before);
    }
    expect(node.passedOn).toEqual([]);
    // This session is newer than the turn's.
    opencode.addSession({ title: 'Later', time: { created: 1, updated: Date.now() + 60_000 } });
    opencode.state.finish(id, 'all is well');
    node.say([webServer(idleIn(DIRECTORY, { id }))]);
    expect((await waiting).data.turns).toMatchObject([
      { instance: 'web', session: { id }, outcome: 'completed', text: 'all is well' },
    ]);
    expect(opencode.count('GET /event')).toBeLessThanOrEqual(1);
  });

  test('returns the waiting permission without a request to the instance', async () => {
    const id = await beginTurn();
    const waiting = wait(runtime, { instances: ['web'], for: 'all' }, testCall());
    node.say([webServer(busyIn(DIRECTORY, { id }, 'rm -rf build'))]);
    const { data, text } = await waiting;
    expect(data.turns).toMatchObject([
      { instance: 'web', session: { id }, outcome: 'waiting', waiting: ['permission per_1: «bash "rm -rf build"»'] },
    ]);
    expect(text).toContain('Settle it with respond (instance web, request_id per_1)');
    for (let times = 0; times < 3; times += 1)
      expect((await wait(runtime, { instances: ['web'], for: 'any' }, testCall())).data.outcome).toBe('1 waiting');
    expect(node.passedOn).toEqual([]);
  });

  test("shows a sub-agent's request with the root session", async () => {
    const busy = busyIn(DIRECTORY, { id: 'ses_root' });
    const child = busyIn(DIRECTORY, { id: 'ses_child', parentId: 'ses_root' }, 'ls');
    const sessions = [...(busy.sessions ?? []), ...(child.sessions ?? [])];
    await startFleet(webServer({ ...busy, waiting: child.waiting, running: ['ses_root', 'ses_child'], sessions }));
    const { data } = await wait(runtime, { for: 'any' }, testCall());
    expect(data.turns).toMatchObject([
      { session: { id: 'ses_root' }, waiting: ['permission per_1: «bash "ls"» (a sub-agent asks)'] },
    ]);
    expect(node.passedOn).toEqual([]);
  });

  test('tolerates a watcher that reports a running turn before its session', async () => {
    const { sessions: _, ...busy } = busyIn(DIRECTORY, { id: 'ses_late' });
    await startFleet(webServer({ ...busy, sessions: [] }));
    const waiting = wait(runtime, { instances: ['web'], for: 'any' }, testCall());
    await settle();
    node.say([webServer(busyIn(DIRECTORY, { id: 'ses_late' }, 'ls'))]);
    expect((await waiting).data.turns).toMatchObject([{ session: { id: 'ses_late' }, outcome: 'waiting' }]);
    expect(node.passedOn).toEqual([]);
  });

  test('returns the running turns at the deadline, without a request', async () => {
    await beginTurn();
    const { data } = await wait(runtime, { for: 'any', timeout_seconds: 0 }, testCall());
    expect(data).toMatchObject({ turns: [{ outcome: 'running', session: { title: 'Fix the build' } }] });
    expect(node.passedOn).toEqual([]);
  });

  test('asks the person about waiting requests, if the client can', async () => {
    const { id } = opencode.addSession({ title: 'Fix the build' });
    opencode.state.begin(id, 'do it');
    const permission = opencode.addPermission({ sessionID: id });
    await startFleet(webServer({ ...busyIn(DIRECTORY, { id }, 'ls') }));
    const askedIds: string[] = [];
    const { data } = await wait(
      runtime,
      { for: 'any' },
      testCall({
        askPerson: (question) => {
          askedIds.push(question.id);
          return Promise.resolve({ kind: 'dismissed' });
        },
      }),
    );
    expect(askedIds).toEqual([permission.id]);
    expect(data.turns).toMatchObject([{ outcome: 'waiting' }]);
  });

  test('follows the turn at the instance once the report is no longer valid', async () => {
    const id = await beginTurn();
    const waiting = wait(runtime, { for: 'any' }, testCall());
    node.hasStates = false;
    node.cut();
    await until('the turn to be followed', () => opencode.openStreams > 0);
    opencode.state.finish(id, 'all is well');
    expect((await waiting).data.turns).toMatchObject([{ outcome: 'completed' }]);
  });

  test('follows the turn at the instance once it may have stalled', async () => {
    const id = await beginTurn({ sinceMs: Date.now() - STALL_MS });
    const waiting = wait(runtime, { for: 'any' }, testCall());
    await until('the turn to be followed', () => opencode.openStreams > 0);
    expect(fleet.snapshot().instances.every(({ server }) => isReported(server))).toBe(true);
    opencode.state.finish(id, 'at last');
    expect((await waiting).data.turns).toMatchObject([{ outcome: 'completed' }]);
  });
});
