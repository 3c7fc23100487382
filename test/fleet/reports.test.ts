import { describe, expect, test } from 'vitest';

import { HINT_WINDOW_MS } from '../../src/discovery/chain.ts';
import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import type { Report, ReportedOverview } from '../../src/model/report.ts';
import { FAKE_ROUTES } from '../rig/fake/fake-http.ts';
import { busyIn, idleIn } from '../rig/fake/fake-node-service.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { until } from '../rig/wait.ts';
import { HEALTHY } from './candidates.ts';
import { settle } from './manual-clock.ts';
import { World } from './world.ts';

const DIRECTORY = '/home/user/a';

interface SettableReport extends Report {
  current: boolean;
}

function report(overviews: readonly ReportedOverview[] = [idleIn(DIRECTORY)], version = '1.18.33'): SettableReport {
  const settable: SettableReport = {
    current: true,
    result: { ...HEALTHY, version, directory: DIRECTORY },
    overviews,
    isCurrent: () => settable.current,
  };
  return settable;
}

function requestsTo(fake: FakeOpencode): number {
  return [...FAKE_ROUTES, 'other' as const].reduce((sum, route) => sum + fake.count(route), 0);
}

/** A world with one instance `a`, which its watcher reports as idle. */
async function reportedWorld(options: ConstructorParameters<typeof World>[0] = {}) {
  const world = new World(options);
  const fake = await world.fake({ directory: DIRECTORY });
  const firstReport = report();
  world.register('a', fake, { route: 'tailnet', report: firstReport });
  await world.start();
  /** Replaces the report, or removes it. */
  const setReport = async (next: Report | undefined): Promise<void> => {
    world.register('a', fake, { route: 'tailnet', ...(next && { report: next }) });
    await world.announce();
  };
  return { world, fake, firstReport, setReport, [Symbol.asyncDispose]: () => world[Symbol.asyncDispose]() };
}

describe("an instance with a watcher's report", () => {
  test('is listed, probed in rounds and surveyed without a request', async () => {
    await using stage = await reportedWorld();
    const { world, fake } = stage;
    expect(world.listed()).toEqual(['a idle']);
    expect(world.instance('a')).toMatchObject({ directory: DIRECTORY, overview: { session: { title: 'A session' } } });
    await world.round();
    const { instances } = await world.fleet.survey();
    expect(instances[0]).toMatchObject({
      lastSeenMs: world.clock.now(),
      overview: { askedAtMs: world.clock.now(), sessions: [] },
    });
    const refreshed = world.fleet.refresh();
    await settle();
    await world.clock.advance(HINT_WINDOW_MS);
    await refreshed;
    expect(requestsTo(fake)).toBe(0);
  });

  test('stays the same instance when its report changes, and the change shows immediately', async () => {
    let changes = 0;
    await using stage = await reportedWorld({ onChange: () => (changes += 1) });
    const { world, fake, setReport } = stage;
    await world.clock.advance(REVIEW_DELAY_MS);
    const before = world.instance('a');
    const changesBefore = changes;
    await setReport(report([busyIn(DIRECTORY, {}, 'ls'), busyIn('/home/user/b', { id: 'ses_b' })]));
    expect(world.listed()).toEqual(['a waiting', 'a-b busy']);
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(changes).toBe(changesBefore + 1);
    const now = world.instance('a');
    expect([now.key, now.host, now.server.endpoints[0].id]).toEqual([before.key, before.host, 'test:a']);
    expect(now.reason).toBe('for permission: «bash "ls"»');
    await setReport(report());
    expect(world.listed()).toEqual(['a idle']);
    expect(world.fleet.resolve('a-b').state).toBe('unknown');
    expect(requestsTo(fake)).toBe(0);
  });

  test('is retrying if its watcher reports a running session of OpenCode 2 as retrying', async () => {
    await using stage = await reportedWorld();
    const { world, setReport } = stage;
    const busy = busyIn(DIRECTORY);
    const reason = 'attempt 2: opencode says "Rate limit"';
    await setReport(
      report([
        { ...busy, sessions: busy.sessions?.map((session) => ({ ...session, state: 'retrying', reason })) ?? [] },
      ]),
    );
    expect(world.instance('a')).toMatchObject({ state: 'retrying', reason });
  });

  test('is probed and surveyed with requests once its report is outdated or gone', async () => {
    await using stage = await reportedWorld();
    const { world, fake, firstReport, setReport } = stage;
    const session = fake.addSession({ title: 'Asked' });
    firstReport.current = false;
    await world.fleet.survey();
    expect(world.instance('a').overview).toMatchObject({ session: { id: session.id } });
    expect(world.instance('a').overview).not.toHaveProperty('sessions');
    await setReport(report());
    expect(world.instance('a').overview).toMatchObject({ session: { title: 'A session' } });
    const before = requestsTo(fake);
    await setReport(undefined);
    // The last report holds until a survey.
    expect([world.listed(), requestsTo(fake)]).toEqual([['a idle'], before]);
    await world.round();
    expect(fake.count('GET /global/health')).toBe(1);
    await world.fleet.survey();
    expect(world.instance('a').overview).toMatchObject({ session: { title: 'Asked' } });
  });

  test('is probed if this program does not know the reported version', async () => {
    await using world = new World();
    await world.startWith(
      'a',
      { directory: DIRECTORY, version: '1.2.3' },
      { report: report([idleIn(DIRECTORY)], '1.2.3') },
    );
    expect(world.listed()).toEqual(['a unsupported']);
  });

  test('shows a new report although a probe of the instance hangs', async () => {
    await using world = new World();
    const fake = await world.fake({ directory: DIRECTORY });
    fake.override('GET /global/health', { kind: 'hang' });
    world.register('a', fake);
    world.fleet.start();
    await until('the instance to be probed', () => fake.count('GET /global/health') === 1);
    world.register('a', fake, { report: report() });
    await world.announce();
    expect(world.listed()).toEqual(['a idle']);
  });

  test('is probed before it is driven, and must answer with the reported directory', async () => {
    await using stage = await reportedWorld();
    const { world, fake, setReport } = stage;
    const reached = await world.fleet.reach(world.instance('a'));
    expect(reached).toMatchObject({ directory: DIRECTORY, serverDirectory: DIRECTORY });
    expect(fake.count('GET /path')).toBe(1);
    const elsewhere = report([idleIn('/home/user/lie')]);
    await setReport({ ...elsewhere, result: { ...elsewhere.result, directory: '/home/user/lie' } });
    expect(world.instance('a').directory).toBe('/home/user/lie');
    await expect(world.fleet.reach(world.instance('a'))).rejects.toThrow(/another instance answers there now/);
  });

  test('sends an OpenCode 2 no directory that only the report names', async () => {
    await using fake = await startFakeOpencode2();
    const credential = { username: 'opencode', password: fake.password };
    await using world = new World({ resolveCredential: () => Promise.resolve(credential) });
    const directory = '/home/user/true';
    fake.addSession({ directory });
    const { version, pid } = fake;
    const result = { status: 'healthy', dialect: 'opencode-2', version, pid, directory: '', worktree: '' } as const;
    const { session: _, ...whole } = idleIn('');
    world.register('a', fake, {
      route: 'tailnet',
      claims: { service: {} },
      report: { ...report([whole, idleIn(directory), busyIn('/home/user/lie')]), result },
    });
    await world.start();
    const [falseInstance, trueInstance] = ['/home/user/lie', directory].map((path) =>
      world.fleet.snapshot().instances.find((instance) => instance.directory === path),
    );
    if (falseInstance === undefined || trueInstance === undefined)
      throw new Error(`Expected both, got ${world.listed().join()}`);
    expect(fake.requests).toEqual([]);
    await expect(world.fleet.reach(falseInstance)).rejects.toThrow(/has no session in \/home\/user\/lie/);
    expect((await world.fleet.reach(trueInstance)).directory).toBe(directory);
    expect(fake.requests.filter((request) => JSON.stringify(request).includes('lie'))).toEqual([]);
  });

  test('is joined with another endpoint of its process by proof, and the report holds for both endpoints', async () => {
    await using stage = await reportedWorld();
    const { world, fake } = stage;
    const tunnel = await world.tunnelTo(fake);
    const claims = { hostname: 'box', id: 'inst_1', localPort: 4096 };
    world.register('a', fake, { route: 'tailnet', report: report([busyIn(DIRECTORY)]), claims });
    // Without the report, the loopback endpoint would be asked first.
    world.register('near', tunnel, { route: 'loopback', claims: { ...claims, name: 'a' } });
    await world.announce();
    await world.quiet();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof', () => world.fleet.snapshot().instances.length === 1);
    expect(world.instance('a').server.endpoints.map(({ candidate }) => candidate.endpoint.route)).toEqual([
      'loopback',
      'tailnet',
    ]);
    const before = requestsTo(fake);
    await world.fleet.survey();
    expect([world.listed(), requestsTo(fake)]).toEqual([['a busy'], before]);
  });
});
