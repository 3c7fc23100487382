import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import type { DiscoverySource } from '../../src/discovery/source.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { type Opencode, startOpencode } from '../rig/opencode.ts';
import { PINNED_OPENCODE, isMissing } from '../rig/opencode-binaries.ts';
import { until } from '../rig/wait.ts';
import { candidate } from '../fleet/candidates.ts';

describe.skipIf(isMissing(PINNED_OPENCODE))('with real opencodes', () => {
  let one: Opencode;
  let other: Opencode;
  let tunnel: FaultProxy;
  let fleet: LiveFleet;
  let candidates: Candidate[] = [];
  const source: DiscoverySource = { name: 'test', scan: async () => ({ candidates, notes: [] }) };

  beforeAll(async () => {
    [one, other] = await Promise.all([startOpencode({ password: 'secret' }), startOpencode({ password: 'secret' })]);
    tunnel = await startFaultProxy(one.url);
    process.stdout.write(`drives ${one.describe()} and ${other.describe()}\n`);
    fleet = new LiveFleet({
      settings: { discoveryIntervalMs: 30_000, healthCheckTimeoutMs: 20_000, healthConcurrency: 8 },
      sources: [source],
      resolveCredential: async ({ key }) =>
        key === 'locked' ? undefined : { username: 'opencode', password: 'secret' },
      clock: systemClock,
      logger: silentLogger,
    });
    // As copied images have it: everything that is claimed of the two is the same.
    const claims = { name: 'work', hostname: 'box', localPort: 4096 };
    candidates = [
      candidate({ key: 'one', url: one.url, claims }),
      candidate({ key: 'tunnel', url: tunnel.url, route: 'relay', claims }),
      candidate({ key: 'other', url: other.url, claims: { ...claims, directory: other.directory } }),
      candidate({ key: 'locked', url: `${other.url}/`, claims: { name: 'locked', id: 'l' }, headers: { 'x-a': 'b' } }),
      candidate({
        key: 'swapped',
        url: `${one.url}/`,
        claims: { name: 'swapped', directory: other.directory },
        headers: { 'x-a': 'c' },
      }),
    ];
    fleet.start();
    await fleet.ready();
  });

  afterAll(async () => {
    await fleet?.close();
    await Promise.all([tunnel?.close(), one?.close(), other?.close()]);
  });

  const names = (): string[] =>
    fleet
      .snapshot()
      .instances.map(({ server }) => server.endpoints.map((endpoint) => endpoint.candidate.key).join(' '))
      .toSorted();

  test('two names to one process are proven one, and two processes that look alike stay two', async () => {
    await until('the proof', () => names().includes('one tunnel'));
    await fleet.refresh();
    expect(names()).toEqual(['locked', 'one tunnel', 'other', 'swapped']);
  });

  test('each tells its version, its own directory and what it is doing', async () => {
    const session = await one.json<{ readonly id: string }>('POST', '/session', { title: 'Look\u202e here' });
    const { instances } = await fleet.survey();
    expect(instances.find(({ server }) => server.endpoints.length === 2)).toMatchObject({
      state: 'idle',
      directory: one.directory,
      overview: {
        activity: { kind: 'idle' },
        session: { id: session.id, title: 'Look here', directory: one.directory },
        waiting: [],
      },
    });
    expect(instances.find(({ name }) => name === 'locked')).toMatchObject({
      state: 'locked',
      reason: expect.stringContaining('none is known for it'),
    });
    expect(instances.find(({ name }) => name === 'swapped')).toMatchObject({
      state: 'offline',
      reason: expect.stringContaining(`registered for ${other.directory}, answering for ${one.directory}`),
    });
  });

  test('the tunnel takes over within the call when the process is only reached by it', async () => {
    const instance = fleet.snapshot().instances.find(({ server }) => server.endpoints.length === 2);
    if (instance === undefined) throw new Error('not joined');
    const reached = await fleet.reach(instance);
    expect(reached).toMatchObject({ directory: one.directory, version: one.version });
    candidates = candidates.filter(({ key }) => key !== 'one');
    await fleet.refresh();
    const again = await fleet.reach(fleet.resolve(instance.name));
    expect(again).toMatchObject({ connection: { endpoint: { url: tunnel.url } }, directory: one.directory });
  });
});
