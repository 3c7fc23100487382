import { expect, onTestFinished, test } from 'vitest';

import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import type { Connection } from '../../src/http/exchange.ts';
import { isSameService } from '../../src/identity/same-service.ts';
import { World } from '../fleet/world.ts';
import { startFaultProxy } from '../rig/network/fault-proxy.ts';
import {
  type FakeOpencode2,
  type FakeOpencode2Options,
  startFakeOpencode2,
} from '../rig/opencode-2/fake-opencode-2.ts';
import { until } from '../rig/wait.ts';

async function service(options: FakeOpencode2Options = {}): Promise<FakeOpencode2> {
  const fake = await startFakeOpencode2(options);
  onTestFinished(() => fake.close());
  return fake;
}
async function tunnelTo(fake: FakeOpencode2): Promise<{ readonly url: string }> {
  const proxy = await startFaultProxy(fake.url);
  onTestFinished(proxy.close);
  return proxy;
}
const createSession = (fake: FakeOpencode2, id: string): Promise<unknown> =>
  fake.json('POST', '/api/session', { id, location: { directory: '/home/ada/project' } });
const connectionTo = (url: string, { password }: FakeOpencode2): Connection => ({
  endpoint: { url, route: 'loopback' },
  credential: { username: 'opencode', password },
});
const areSame = (one: Connection, other: Connection): Promise<boolean> =>
  isSameService(one, other, { deadlineMs: 20_000 }, new AbortController().signal);

test('isSameService is true for two connections to one service, and loads and changes nothing', async () => {
  const fake = await service();
  await createSession(fake, 'ses_one');
  const tunnel = await tunnelTo(fake);
  const [requestCount, loadedBefore] = [fake.requests.length, new Set(fake.loaded)];
  expect(await areSame(connectionTo(fake.url, fake), connectionTo(tunnel.url, fake))).toBe(true);
  expect(new Set(fake.requests.slice(requestCount).map(({ route }) => route))).toEqual(
    new Set(['GET /api/info', 'GET /api/session']),
  );
  expect(fake.loaded).toEqual(loadedBefore);
});

test.each([
  ['different newest sessions, even with equal process and version', {}, ['ses_one'], ['ses_other']],
  ['another process', { pid: 4242 }, ['ses_one'], ['ses_one']],
  ['another version', { version: '2.1.3' }, ['ses_one'], ['ses_one']],
  ['two services without sessions, since process and version alone prove nothing', {}, [], []],
])('isSameService is false for %s', async (_, options, sessions, others) => {
  const [fake, other] = await Promise.all([service(), service(options)]);
  await Promise.all([
    ...sessions.map((id) => createSession(fake, id)),
    ...others.map((id) => createSession(other, id)),
  ]);
  expect(await areSame(connectionTo(fake.url, fake), connectionTo(other.url, other))).toBe(false);
});

test('two endpoints of one service are listed as one, and two services as two', async () => {
  const [fake, other] = await Promise.all([service(), service({ pid: 4242 })]);
  await Promise.all([createSession(fake, 'ses_one'), createSession(other, 'ses_one')]);
  const tunnel = await tunnelTo(fake);
  await using world = new World({
    resolveCredential: async () => ({ username: 'opencode', password: fake.password }),
  });
  for (const [key, { url }] of Object.entries({ direct: fake, tunnel, other }))
    world.register(key, { url }, { claims: { hostname: 'desk', service: {} } });
  await world.start();
  await world.clock.advance(REVIEW_DELAY_MS);
  const { fleet } = world;
  const services = (): number => new Set(fleet.snapshot().instances.map(({ server }) => server.key)).size;
  await until('the two endpoints to be of one service', () => services() === 2);
  const both = fleet.snapshot().instances.find(({ server }) => server.endpoints.length === 2);
  expect(both?.server.endpoints.map(({ candidate: { key } }) => key).toSorted()).toEqual(['direct', 'tunnel']);
});
