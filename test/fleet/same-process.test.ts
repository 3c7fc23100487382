import { describe, expect, test } from 'vitest';

import { type Reached, UnreachableError } from '../../src/fleet/contract.ts';
import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import type { Claims } from '../../src/model/candidate.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import type { FaultProxy } from '../rig/network/fault-proxy.ts';
import { until } from '../rig/wait.ts';
import { World } from './world.ts';

async function urlOfAnother(
  world: World,
  reached: Reached,
  ...failed: readonly { readonly url: string }[]
): Promise<string> {
  try {
    const urls = failed.map(({ url }) => url);
    return (await world.fleet.reachAnother(reached, [reached.endpointId, ...urls])).connection.endpoint.url;
  } catch (error) {
    if (error instanceof UnreachableError) return 'none';
    throw error;
  }
}

/** One process with a direct endpoint and two through proxies; all three have `claims`. */
async function threeEndpoints(world: World, claims: Claims) {
  const fake = await world.fake({ directory: '/home/user/a' });
  const [tailnet, relay] = await Promise.all([world.tunnelTo(fake), world.tunnelTo(fake)]);
  const common = { localPort: fake.port, name: 'a', ...claims };
  world.register('a', fake, { claims: common });
  world.register('t', tailnet, { route: 'tailnet', claims: common });
  world.register('r', relay, { route: 'relay', claims: common });
  world.fleet.start();
  await world.fleet.ready();
  await until(
    'the endpoints to be of one server',
    () => world.fleet.snapshot().instances[0]?.server.endpoints.length === 3,
  );
  return { fake, tailnet, relay, reached: await world.fleet.reach(world.instance('a')) };
}

/** Takes the endpoint down and up again; nothing proves that it still leads to the same process. */
async function reopenWithoutProof(world: World, fake: FakeOpencode, proxy: FaultProxy): Promise<void> {
  await proxy.down();
  await world.round();
  fake.override('POST /session/:id/abort', { kind: 'answer', body: true });
  await proxy.up();
  await world.round();
}

describe('another endpoint of the same process', () => {
  test('is the best proven one that has not failed', async () => {
    await using world = new World();
    const { tailnet, relay, reached } = await threeEndpoints(world, {});
    expect(await urlOfAnother(world, reached)).toBe(tailnet.url);
    expect(await urlOfAnother(world, reached, tailnet)).toBe(relay.url);
    expect(await urlOfAnother(world, reached, tailnet, relay)).toBe('none');
    await tailnet.down();
    expect(await urlOfAnother(world, reached)).toBe(relay.url);
  });

  test('is not one that was down since its proof: another process may have started there', async () => {
    await using world = new World();
    const { fake, tailnet, relay, reached } = await threeEndpoints(world, {});
    await reopenWithoutProof(world, fake, tailnet);
    expect(await urlOfAnother(world, reached)).toBe(relay.url);
    expect(await urlOfAnother(world, reached, relay)).toBe('none');
  });

  test('is not one that was down when the call began and is back without a proof', async () => {
    await using world = new World();
    const { fake, tailnet, relay } = await threeEndpoints(world, {});
    await tailnet.down();
    await world.round();
    const reached = await world.fleet.reach(world.instance('a'));
    await reopenWithoutProof(world, fake, tailnet);
    expect(await urlOfAnother(world, reached, relay)).toBe('none');
  });

  test('is one that was proven after the call began', async () => {
    await using world = new World();
    const { fake, reached } = await threeEndpoints(world, {});
    const lateTunnel = await world.tunnelTo(fake);
    await world.add('l', lateTunnel, { route: 'relay', claims: { name: 'a', localPort: fake.port } });
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof of the fourth endpoint', () => world.instance('a').server.endpoints.length === 4);
    for (const key of ['t', 'r']) world.source.candidates.delete(key);
    await world.announce();
    expect(await urlOfAnother(world, reached)).toBe(lateTunnel.url);
  });

  test("is the instance's own registration after a move: a tunnel that is back has another port", async () => {
    await using world = new World();
    const fake = await world.fake({ directory: '/home/user/a' });
    const [relay, newTunnel] = await Promise.all([world.tunnelTo(fake), world.tunnelTo(fake)]);
    const claims = { id: 'x', localPort: fake.port };
    world.register('r', relay, { route: 'relay', claims });
    await world.start();
    const reached = await world.fleet.reach(world.instance('r'));
    await relay.down();
    await world.round();
    world.register('r', newTunnel, { route: 'relay', claims });
    await world.announce();
    expect(await urlOfAnother(world, reached)).toBe(newTunnel.url);
    // Another process under the same name.
    world.register('r', newTunnel, { route: 'relay', claims: { ...claims, id: 'y' } });
    await world.announce();
    expect(await urlOfAnother(world, reached)).toBe('none');
  });

  test('is not an endpoint of a second process with the same id, such as on a copied machine', async () => {
    await using world = new World();
    const claims = { id: 'x', localPort: 4096, name: 'a' };
    const [one, other] = await Promise.all([
      world.fake({ directory: '/home/user/a' }),
      world.fake({ directory: '/home/user/a' }),
    ]);
    const proxy = await world.tunnelTo(one);
    world.register('a', proxy, { claims });
    world.register('b', other, { route: 'relay', claims });
    world.fleet.start();
    await world.quiet();
    const reached = await world.fleet.reach(world.instance('a'));
    await proxy.down();
    expect(await urlOfAnother(world, reached)).toBe('none');
    await world.round();
    expect(await urlOfAnother(world, reached)).toBe('none');
    expect(world.listed()).toEqual(['a offline', 'a@box idle']);
  });

  test('is not one in another directory', async () => {
    await using world = new World();
    const { tailnet, relay, reached } = await threeEndpoints(world, { id: 'x' });
    const elsewhere = await world.fake({ directory: '/home/user/b' });
    tailnet.retarget(elsewhere.url);
    expect(await urlOfAnother(world, reached)).toBe(relay.url);
  });
});

describe('a LAN announcement', () => {
  test('is the last choice once it is proven, and is not chosen after it failed', async () => {
    await using world = new World();
    const { fake, tailnet, relay, reached } = await threeEndpoints(world, { id: 'x' });
    const lan = await world.tunnelTo(fake);
    await world.add('l', lan, { route: 'lan', claims: { id: 'x', name: 'a', localPort: fake.port } });
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof of the fourth endpoint', () => world.instance('a').server.endpoints.length === 4);
    expect(world.instance('a').server.endpoints.map(({ candidate }) => candidate.endpoint.route)).toEqual([
      'loopback',
      'tailnet',
      'relay',
      'lan',
    ]);
    expect(await urlOfAnother(world, reached)).toBe(tailnet.url);
    expect(await urlOfAnother(world, reached, tailnet, relay)).toBe(lan.url);
    await reopenWithoutProof(world, fake, lan);
    expect(await urlOfAnother(world, reached, tailnet, relay)).toBe('none');
  });

  test('is not chosen because it claims the id, name, host and port of another instance, even if that one is offline', async () => {
    await using world = new World();
    const { fake, tailnet, relay, reached } = await threeEndpoints(world, { id: 'x' });
    const liar = await world.fake({ directory: '/home/user/a' });
    await world.add('l', liar, { route: 'lan', claims: { id: 'x', name: 'a', localPort: fake.port } });
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(await urlOfAnother(world, reached, tailnet, relay)).toBe('none');
    await Promise.all([fake.close(), tailnet.down(), relay.down()]);
    expect(await urlOfAnother(world, reached)).toBe('none');
    await world.round();
    expect(await urlOfAnother(world, reached)).toBe('none');
    expect(world.listed()).toEqual(['a offline', 'a@box idle']);
    expect(liar.state.prompts).toEqual([]);
  });

  test('does not inherit the proof of the address that it took over', async () => {
    await using world = new World();
    const one = await world.fake({ directory: '/home/user/a' });
    const claims = { id: 'x', localPort: one.port };
    const proxy = await world.tunnelTo(one);
    world.register('l', proxy, { route: 'lan', claims });
    await world.start();
    const reached = await world.fleet.reach(world.fleet.snapshot().instances[0]!);
    const liar = await world.fake({ directory: '/home/user/a' });
    world.register('l', liar, { route: 'lan', claims });
    await world.announce();
    await world.quiet();
    expect(await urlOfAnother(world, reached)).toBe('none');
  });
});
