import { describe, expect, test } from 'vitest';

import { UnreachableError } from '../../src/fleet/contract.ts';
import { EndpointRecord } from '../../src/fleet/endpoint-record.ts';
import { findEndpoint } from '../../src/fleet/reach.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ProbeOutcome } from '../../src/probing/prober.ts';
import { until } from '../rig/wait.ts';
import { candidate, DEAD } from './candidates.ts';
import { DEADLINE_MS, World } from './world.ts';

/** Returns the reached URL or the error message. */
async function reach(world: World, instance: Instance, signal?: AbortSignal): Promise<string> {
  try {
    const { connection } = await world.fleet.reach(instance, signal);
    return `reached ${connection.endpoint.url}`;
  } catch (error) {
    if (error instanceof UnreachableError) return error.message;
    throw error;
  }
}

describe('reaching', () => {
  test('probes the instance again and returns the connection, directories and version', async () => {
    const credential = { username: 'opencode', password: 'secret' };
    await using world = new World({ resolveCredential: async () => credential });
    const fake = await world.startWith('a', { directory: '/home/user/a', password: 'secret' });
    const before = fake.count('GET /path');
    const reached = await world.fleet.reach(world.instance('a'));
    expect(reached).toMatchObject({
      instance: { name: 'a', state: 'idle' },
      connection: { endpoint: { url: fake.url }, credential },
      directory: '/home/user/a',
      worktree: '/home/user/a',
      version: '1.18.33',
    });
    expect(fake.count('GET /path')).toBe(before + 1);
    expect(JSON.stringify(world.fleet.snapshot())).not.toContain('secret');
  });

  test('uses the best endpoint, and in the same call the next endpoint if the best one refuses', async () => {
    await using world = new World();
    const { proxy, fake, instance } = await world.startWithTwoEndpoints();
    expect(await reach(world, instance)).toBe(`reached ${proxy.url}`);
    await proxy.down();
    expect(await reach(world, instance)).toBe(`reached ${fake.url}`);
    expect(
      world.instance('a').server.endpoints.map(({ candidate, result }) => `${candidate.key} ${result.status}`),
    ).toEqual(['r healthy', 'a unhealthy']);
  });

  test('a hanging endpoint is unhealthy after a short probe', async () => {
    await using world = new World();
    const { proxy, fake, instance } = await world.startWithTwoEndpoints();
    proxy.rule({}, { kind: 'hang' });
    const before = proxy.count({ path: '/global/health' });
    const reaching = reach(world, instance);
    await proxy.waitForRequest({ path: '/global/health' }, { nth: before + 1 });
    await world.clock.advance(DEADLINE_MS / 4);
    expect(await reaching).toBe(`reached ${fake.url}`);
    expect(world.instance('a').server.endpoints.map(({ candidate }) => candidate.key)).toEqual(['r', 'a']);
  });

  test('the only endpoint is probed again if its first probe gets no answer', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    fake.override('GET /global/health', { kind: 'hang' }, 1);
    const reaching = reach(world, world.instance('a'));
    await until('the first probe', () => fake.load.current === 1);
    expect(world.listed()).toEqual(['a idle']);
    await world.clock.advance(DEADLINE_MS / 4);
    expect(await reaching).toBe(`reached ${fake.url}`);
  });

  test('an instance from an old snapshot is reached at its new address', async () => {
    await using world = new World();
    const [fake, moved] = await Promise.all([world.fake({ directory: '/d' }), world.fake({ directory: '/d' })]);
    world.register('a', fake);
    await world.start();
    const instance = world.instance('a');
    await world.add('a', moved);
    expect(await reach(world, instance)).toBe(`reached ${moved.url}`);
  });
});

describe('an instance that cannot be reached', () => {
  test('causes an error that lists each endpoint, why it failed, and what to do', async () => {
    await using world = new World();
    const { proxy, fake, instance } = await world.startWithTwoEndpoints();
    await Promise.all([proxy.down(), fake.close()]);
    expect(await reach(world, instance)).toBe(
      `a cannot be driven now. Tried loopback ${proxy.url}: GET ${proxy.url}/global/health: ECONNREFUSED; relay ${fake.url}: GET ${fake.url}/global/health: ECONNREFUSED. Check that opencode still runs there, then call refresh_instances.`,
    );
  });

  test.each([
    ['locked', { password: 'secret' }, /HTTP 401: it asks for a password.*Run opencode-mcp doctor a where this server/],
    ['unsupported', { version: '1.0.0' }, /Update opencode on that machine/],
  ])('causes an error with advice if it is %s', async (_, options, advice) => {
    await using world = new World();
    await world.startWith('a', options);
    expect(await reach(world, world.instance('a'))).toMatch(advice);
  });

  test('causes an error with both directories if another instance answers at its address', async () => {
    await using world = new World();
    const [fake, other] = await Promise.all([
      world.fake({ directory: '/home/user/a' }),
      world.fake({ directory: '/home/user/b' }),
    ]);
    const proxy = await world.tunnelTo(fake);
    world.register('a', proxy);
    await world.start();
    const instance = world.instance('a');
    proxy.retarget(other.url);
    expect(await reach(world, instance)).toContain(
      'another instance answers there now: known for /home/user/a, answering for /home/user/b. Call refresh_instances and choose again.',
    );
    // Looked up again, `a` is the instance that answers.
    expect(await reach(world, world.instance('a'))).toBe(`reached ${proxy.url}`);
  });

  test('is not probed if its registration is gone or belongs to another instance', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    const instance = world.instance('a');
    await world.add('a', fake, { claims: { name: 'b' } });
    const before = fake.count('GET /global/health');
    expect(await reach(world, instance)).toContain('a cannot be reached: it is no longer registered anywhere');
    world.source.candidates.clear();
    await world.announce();
    expect(await reach(world, instance)).toContain('it is no longer registered anywhere');
    expect(fake.count('GET /global/health')).toBe(before);
  });

  test('is tried at no more than eight endpoints', async () => {
    const records = Array.from({ length: 9 }, (_, index) => new EndpointRecord(`test:${index}`, candidate()));
    let probeCount = 0;
    const { endpoint } = candidate();
    const look = async (): Promise<ProbeOutcome> => {
      probeCount += 1;
      return { result: DEAD, learnt: {}, missing: [], timedOut: false, connection: { endpoint }, sequence: probeCount };
    };
    const goal = { name: 'a', records, directory: undefined };
    await expect(findEndpoint(goal, { look, end: () => {} })).rejects.toThrow(UnreachableError);
    expect(probeCount).toBe(8);
  });

  test('causes an error about the cancellation if the caller aborts', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    fake.override('GET /global/health', { kind: 'hang' });
    const controller = new AbortController();
    const reaching = reach(world, world.instance('a'), controller.signal);
    await until('the probe', () => fake.load.current === 1);
    controller.abort();
    expect(await reaching).toBe('Probing a was cancelled; nothing was done there.');
    expect(await reach(world, world.instance('a'), controller.signal)).toContain('was cancelled');
  });
});
