import { describe, expect, onTestFinished, test } from 'vitest';

import { silentLogger } from '../../src/base/log.ts';
import { systemClock } from '../../src/base/clock.ts';
import { HINT_WINDOW_MS } from '../../src/discovery/chain.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import { REPORT_LIFETIME_MS } from '../../src/model/report.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import type { WatchedServer } from '../../src/watch/contract.ts';
import { withReports } from '../../src/watch/with-reports.ts';
import { conformance } from '../discovery/conformance.ts';
import { registryFolder, registrySource } from '../discovery/registry-stage.ts';
import { settle } from '../fleet/manual-clock.ts';
import { DEADLINE_MS, INTERVAL_MS, World } from '../fleet/world.ts';
import { FAKE_ROUTES } from '../rig/fake/fake-http.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { openRegistry } from '../rig/registry.ts';
import { HandWatcher } from './hand-watcher.ts';

async function stage() {
  const folder = registryFolder();
  const registry = await openRegistry(folder.directory);
  await registry.add({ name: 'api', port: 4096, id: 'id-api' });
  const watcher = new HandWatcher();
  return {
    source: withReports(registrySource(folder.directory), watcher, systemClock),
    keys: ['api.json'],
    change: () => Promise.resolve(watcher.set()),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

conformance({ name: 'local-relay with reports', working: stage, hinting: stage });

const SESSION: WatchedSession = {
  id: 'ses_1',
  title: 'Fix the build',
  directory: '/home/user/elsewhere',
  state: 'failed',
  sinceMs: 1,
  reason: 'the model is overloaded',
  waiting: [],
};

describe('a fleet whose source has reports', () => {
  /** A server followed by a watcher, and another fleet over the same registrations. */
  async function startFleets() {
    const world = new World();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const fake = await world.fake({ directory: '/home/user/a' });
    world.register('a', fake);
    const session = fake.addSession({ title: 'Here', directory: '/home/user/b' });
    fake.state.statuses.set(session.id, { type: 'busy' });
    await world.start();
    await world.fleet.survey();
    const watcher = new HandWatcher();
    const { clock } = world;
    const watched = (fields: Partial<WatchedServer> = {}): WatchedServer => ({
      id: 'id-a',
      instances: world.fleet.snapshot().instances,
      sessions: [SESSION],
      lastEvents: new Map(),
      checkedMs: clock.monotonic(),
      ...fields,
    });
    watcher.set(watched());
    const fleet = new LiveFleet({
      settings: { discoveryIntervalMs: INTERVAL_MS, healthCheckTimeoutMs: DEADLINE_MS, healthConcurrency: 4 },
      sources: [withReports(world.source, watcher, clock)],
      resolveCredential: async () => undefined,
      clock,
      logger: silentLogger,
    });
    onTestFinished(() => fleet.close());
    const before = requestsTo(fake);
    fleet.start();
    await fleet.ready();
    /** How many requests the fleet has sent to the server. */
    const requests = (): number => requestsTo(fake) - before;
    return { world, fake, clock, watcher, watched, fleet, requests };
  }

  test("takes the watcher's report and sends no request", async () => {
    const { fleet, requests } = await startFleets();
    const { instances } = await fleet.survey();
    expect(instances).toMatchObject([
      { name: 'a', state: 'idle', overview: { sessions: [SESSION] } },
      { name: 'a-b', state: 'busy', directory: '/home/user/b', overview: { sessions: [] } },
    ]);
    expect(requests()).toBe(0);
  });

  test('shows a reported change immediately, without a request', async () => {
    const { fake, fleet, world, clock, watcher, watched, requests } = await startFleets();
    fake.state.statuses.clear();
    await world.fleet.survey();
    const before = requests();
    watcher.set(watched());
    await settle();
    await clock.advance(HINT_WINDOW_MS);
    expect(fleet.snapshot().instances).toMatchObject([{ name: 'a' }, { name: 'a-b', state: 'idle' }]);
    expect(requests()).toBe(before);
  });

  test.each<[string, Partial<WatchedServer>]>([
    ['while its event stream is down', { checkedMs: undefined }],
    ['if the report belongs to another registration', { instances: [] }],
  ])('probes the server %s', async (_, fields) => {
    const { fleet, clock, watcher, watched, requests } = await startFleets();
    watcher.set(watched(fields));
    await settle();
    await clock.advance(HINT_WINDOW_MS);
    await fleet.survey();
    expect(requests()).toBeGreaterThan(0);
  });

  test('probes the server if the report is too old', async () => {
    const { fleet, clock, requests } = await startFleets();
    await clock.advance(REPORT_LIFETIME_MS - 1);
    await fleet.survey();
    expect(requests()).toBe(0);
    await clock.advance(1);
    await fleet.survey();
    expect(requests()).toBeGreaterThan(0);
  });
});

function requestsTo(fake: FakeOpencode): number {
  return FAKE_ROUTES.reduce((sum, route) => sum + fake.count(route), 0);
}
