import { describe, expect, test } from 'vitest';

import type { Instance, Server } from '../../src/model/instance.ts';
import { isSame } from '../../src/identity/names.ts';
import { endingsOf, identityOf, nameable, nameableIn, namesOf as namesOfServer } from '../../src/identity/naming.ts';
import type { Candidate, Claims } from '../../src/model/candidate.ts';
import { probed } from '../fleet/candidates.ts';
import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import { World } from '../fleet/world.ts';
import { until } from '../rig/wait.ts';

function sighting(hostname: string, route: 'tailnet' | 'lan', trust: Candidate['trust']): Candidate {
  return {
    source: 'any',
    key: 'one',
    endpoint: { url: 'http://100.64.0.1:4095/opencode-mcp/v1/i/p', route },
    claims: { id: 'p', name: 'foo', hostname },
    trust,
  };
}

const namesOf = (instance: Instance): readonly string[] => namesOfServer(instance.server, [instance]);

const trusted = { level: 'trusted' } as const;

test.each([
  ['of a machine in the tailnet is the same after the machine is renamed', 'tailnet', trusted, true],
  ['advertised in the LAN is not the same after the machine is renamed: anyone may send its id', 'lan', trusted, false],
  [
    'with an untrusted registration is not the same after the machine is renamed',
    'tailnet',
    { level: 'untrusted', reason: 'any' },
    false,
  ],
] as const)('an instance %s', (_, route, trust, expected) => {
  expect(isSame(identityOf(sighting('old', route, trust)), identityOf(sighting('new', route, trust)))).toBe(expected);
});

describe('the names that an instance has or had', () => {
  test('include its names without namesakes, with namesakes, and with namesakes on its host', async () => {
    await using world = new World();
    const [one, two, three] = [await world.fake(), await world.fake(), await world.fake()];
    world.register('a', one, { claims: { name: 'prod', hostname: 'One', localPort: 4096 } });
    world.register('b', two, { claims: { name: 'prod', hostname: 'two', localPort: 4096 } });
    world.register('c', three, { claims: { name: 'prod', hostname: 'two', localPort: 4097 } });
    await world.start();
    for (const [shown, names] of [
      ['prod@One', ['prod', 'prod@One', 'prod@One:4096']],
      ['prod@two:4096', ['prod', 'prod@two', 'prod@two:4096']],
      ['prod@two:4097', ['prod', 'prod@two', 'prod@two:4097']],
    ] as const)
      expect(namesOf(world.instance(shown)).toSorted()).toEqual(names);
  });

  test('include the names shown before two endpoints were proven to be one instance, also when one endpoint is gone', async () => {
    await using world = new World();
    const fake = await world.fake();
    const tunnel = await world.tunnelTo(fake);
    world.register('prod', fake, { claims: { id: 'p' } });
    world.register('relayed', tunnel, { route: 'relay', claims: { id: 'p' } });
    await world.start();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof', () => world.listed().length === 1);
    const [name = ''] = world.listed()[0]?.split(' ') ?? [];
    const all = ['prod', 'prod@box', 'relayed', 'relayed@box'];
    expect(namesOf(world.instance(name))).toEqual(expect.arrayContaining(all));
    world.source.candidates.delete('prod');
    await world.announce();
    await world.quiet();
    expect(namesOf(world.instance(name))).toEqual(expect.arrayContaining(['prod', 'relayed', 'relayed@box']));
  });

  const shown = (name: string, claims: Claims, aliases: readonly string[] = []): Instance => ({
    server: { key: 'k', claims, endpoints: [probed({ claims })] },
    key: 'k',
    name,
    aliases,
    state: 'idle',
    host: 'h',
  });

  test('include an unclaimed name without its host and port', () => {
    const names = namesOf(shown('prod@one:4096#2', { name: 'x', hostname: 'h', localPort: 1 }, ['web@one:1']));
    expect(names).toEqual(
      expect.arrayContaining(['prod@one:4096#2', 'prod@one', 'prod', 'web@one:1', 'web', 'x', 'x@h:1']),
    );
  });

  test('include a name with an @ only as a whole, and a long name uncut', () => {
    expect(namesOf(shown('me@work', { name: 'me@work', hostname: 'h' }))).not.toContain('me');
    const long = 'n'.repeat(100);
    expect(namesOf(shown(long.slice(0, 63), { name: long, hostname: 'h' }))).toContain(long);
  });
});

describe('the directories of an OpenCode 2 service', () => {
  const service = { pid: 7 };
  const serverOf = (claims: Claims): Server => {
    return { key: 'one', claims, endpoints: [probed({ claims })] };
  };

  test.each([
    ['found by its file', { hostname: 'laptop.local', service }, 'laptop:service', 'laptop-app'],
    ['registered here', { hostname: 'Laptop', name: 'laptop:service', service }, 'laptop:service', 'Laptop-app'],
    ['registered on a relay', { hostname: 'laptop', name: 'laptop:service' }, 'laptop:service', 'laptop-app'],
    ['named by its user', { hostname: 'laptop', name: 'work', service }, 'work', 'work-app'],
    ['named by its user, on a relay', { hostname: 'laptop', name: 'work' }, 'work', 'work-app'],
  ])('have the right base names if the service is %s', (_, claims, own, other) => {
    expect(nameable(serverOf(claims)).base).toBe(own);
    expect(nameableIn(serverOf(claims), '/src/app', endingsOf([])).base).toBe(other);
  });
});
