import { describe, expect, test } from 'vitest';

import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import { STEADY_ROUNDS } from '../../src/fleet/endpoint-record.ts';
import type { Snapshot } from '../../src/model/instance.ts';
import { until } from '../rig/wait.ts';
import { World } from './world.ts';

/** One process with a better, flapping endpoint and a worse, steady one. */
async function flapping(world: World) {
  const fake = await world.fake({ directory: '/home/user/a' });
  const [direct, relay] = await Promise.all([world.tunnelTo(fake), world.tunnelTo(fake)]);
  const claims = { id: 'x', localPort: fake.port };
  world.register('a', direct, { route: 'tailnet', claims });
  world.register('r', relay, { route: 'relay', claims: { ...claims, name: 'a' } });
  world.fleet.start();
  await world.fleet.ready();
  const proofs = (): number => fake.count('POST /session/:id/abort');
  /** One round with the better endpoint up or down. */
  const round = async (up: boolean): Promise<void> => {
    await (up ? direct.up() : direct.down());
    const before = proofs();
    await world.round();
    await world.clock.advance(REVIEW_DELAY_MS);
    if (up) await until('a new proof', () => proofs() > before && endpoints(world)[0]?.split(' ').length === 3);
    await world.clock.advance(1000);
  };
  return { fake, direct, relay, round };
}

const endpointsTo = ({ instances }: Snapshot): string[] =>
  instances.map(({ name, server }) => [name, ...server.endpoints.map(({ candidate }) => candidate.key)].join(' '));
const endpoints = (world: World): string[] => endpointsTo(world.fleet.snapshot());

describe('a flapping endpoint', () => {
  test('in every round: one entry, one name, and the steady endpoint in use', async () => {
    await using world = new World();
    const { round } = await flapping(world);
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(endpoints(world)).toEqual(['a a r']);
    for (let flap = 0; flap < 6; flap += 1) {
      await round(false);
      expect(endpoints(world)).toEqual(['a r a']);
      await round(true);
      expect(endpoints(world)).toEqual(['a r a']);
    }
  });

  test('is preferred again after it has answered for some rounds', async () => {
    await using world = new World();
    const { round } = await flapping(world);
    await round(false);
    await round(true);
    for (let steady = 1; steady <= STEADY_ROUNDS; steady += 1) {
      expect(endpoints(world)).toEqual(['a r a']);
      await world.round();
    }
    expect(endpoints(world)).toEqual(['a a r']);
  });

  test('is used while it is the only one that answers', async () => {
    await using world = new World();
    const { relay, round } = await flapping(world);
    await round(false);
    await round(true);
    expect(endpoints(world)).toEqual(['a r a']);
    await relay.down();
    await world.fleet.survey();
    expect(endpoints(world)).toEqual(['a a r']);
  });

  test('is not listed on its own while a new proof is tried', async () => {
    await using world = new World();
    const { fake, direct, round } = await flapping(world);
    await round(false);
    fake.override('GET /global/event', { kind: 'hang' });
    await direct.up();
    await world.round();
    expect(endpoints(world)).toEqual(['a r']);
    // It fails again before a new proof.
    await direct.down();
    await world.fleet.refresh();
    expect(endpoints(world)).toEqual(['a r a']);
  });

  test('is listed on its own once nothing suggests the pair any more', async () => {
    await using world = new World();
    const { direct, relay, round, fake } = await flapping(world);
    await round(false);
    world.register('a', direct, {
      route: 'tailnet',
      claims: { id: 'x', localPort: fake.port, name: 'a', hostname: 'other' },
    });
    world.register('r', relay, { route: 'relay', claims: { name: 'a', hostname: 'box' } });
    await world.announce();
    await direct.up();
    await world.round();
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(endpoints(world)).toHaveLength(2);
  });
});
