import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { ProbedEndpoint, ProbeResult } from '../../src/model/instance.ts';
import { ROUTES } from '../../src/model/candidate.ts';
import { endpointKey } from '../../src/model/endpoint-key.ts';
import { isHealthy, type KeyPair, merge, type Merged, type ProofSet } from '../../src/identity/merge.ts';
import { DEAD, HEALTHY, probed } from '../fleet/candidates.ts';

const NO_PROOFS: ProofSet = { proven: [], former: [] };

function groups(merged: Merged): string[][] {
  return merged.servers.map(({ endpoints }) => endpoints.map(({ id }) => id.replace('test:', '')));
}

const endpointAt = (
  port: number,
  key: string,
  fields: Omit<Parameters<typeof probed>[0], 'key' | 'url'> = {},
): ProbedEndpoint => probed({ key, url: `http://127.0.0.1:${port}`, ...fields });

const keyOf = (endpoint: ProbedEndpoint): string => endpointKey(endpoint.candidate.endpoint);
const proof = (one: ProbedEndpoint, other: ProbedEndpoint): KeyPair => [keyOf(one), keyOf(other)];

describe('one address', () => {
  const [together, apart] = [[['a', 'b']], [['a'], ['b']]];
  test.each([
    ['http://127.0.0.1:4096', 'http://127.0.0.1:4096', together],
    ['http://Box.example:80', 'http://box.example', together],
    ['https://box.example', 'https://box.example:443', together],
    ['http://box.example:1/a', 'http://BOX.example:1/a', together],
    ['http://127.0.0.1:4096', 'http://127.0.0.1:4097', apart],
    ['http://127.0.0.1:4096', 'https://127.0.0.1:4096', apart],
    ['http://127.0.0.1:4096', 'http://localhost:4096', apart],
    ['http://127.0.0.1:4096', 'http://[::1]:4096', apart],
    ['http://box/a', 'http://box/b', apart],
    ['http://box/a', 'http://box/A', apart],
  ])('%s and %s: %j', (one, other, expected) => {
    expect(groups(merge([probed({ key: 'a', url: one }), probed({ key: 'b', url: other })], NO_PROOFS))).toEqual(
      expected,
    );
  });

  test('configured headers are part of the address: a proxy may route by them', () => {
    const one = probed({ key: 'a', headers: { 'x-box': 'one' } });
    const other = probed({ key: 'b', headers: { 'x-box': 'two' } });
    expect(groups(merge([one, other], NO_PROOFS))).toEqual([['a'], ['b']]);
  });

  test.each([
    ['ids', { id: 'x', name: 'a' }, { id: 'y', name: 'a' }],
    ['names', { name: 'a' }, { name: 'b' }],
    ['directories', { name: 'a', directory: '/a' }, { name: 'a', directory: '/b' }],
  ])('registrations with different %s contradict: the newest one stays, the other becomes a note', (_, old, recent) => {
    const one = endpointAt(1, 'a', { claims: { ...old, connectedAt: 1 } });
    const other = endpointAt(1, 'b', { claims: { ...recent, connectedAt: 2 } });
    const merged = merge([one, other], NO_PROOFS);
    expect(groups(merged)).toEqual([['b']]);
    expect(merged.notes).toEqual([{ subject: old.name, reason: expect.stringContaining('http://127.0.0.1:1') }]);
  });

  test('the registration that answers is kept even if it is older', () => {
    const one = endpointAt(1, 'old', { claims: { id: 'x', connectedAt: 1 } });
    const other = endpointAt(1, 'new', { claims: { id: 'y', connectedAt: 2 }, result: DEAD });
    expect(groups(merge([one, other], NO_PROOFS))).toEqual([['old']]);
  });

  test('a stale service file is not merged with an OpenCode 1 that holds its port', () => {
    const left = endpointAt(1, 'service', { claims: { service: { pid: 7 } }, result: DEAD });
    const living = endpointAt(1, 'registered', { claims: { name: 'a' } });
    expect(groups(merge([left, living], NO_PROOFS))).toEqual([['registered']]);
    const service = endpointAt(1, 'service', {
      claims: { service: { pid: 7 } },
      result: { ...HEALTHY, dialect: 'opencode-2' },
    });
    const configured = endpointAt(1, 'mine', { claims: { name: 'mine' }, pinned: true, result: service.result });
    expect(groups(merge([service, configured], NO_PROOFS))).toEqual([['mine', 'service']]);
  });

  test('a registration without an id, and a configured name, contradict nothing', () => {
    const registered = endpointAt(1, 'r', { claims: { id: 'x', name: 'a' } });
    const original = endpointAt(1, 'o', { claims: { name: 'a' } });
    const configured = endpointAt(1, 's', { claims: { name: 'mine' }, pinned: true });
    const merged = merge([registered, original, configured], NO_PROOFS);
    expect(groups(merged)).toEqual([['o', 'r', 's']]);
    expect(merged.servers[0]?.claims).toMatchObject({ id: 'x', name: 'mine' });
  });

  test('an untrusted registration is not merged and displaces no other', () => {
    const good = endpointAt(1, 'good', { claims: { id: 'x', connectedAt: 1 } });
    const reason = 'world-writable';
    const bad = endpointAt(1, 'bad', {
      claims: { id: 'x', name: 'evil', connectedAt: 9 },
      trust: { level: 'untrusted', reason },
      result: { status: 'untrusted', reason },
    });
    const merged = merge([bad, good], NO_PROOFS);
    expect(groups(merged)).toEqual([['bad'], ['good']]);
    expect(merged.servers[1]?.claims.name).toBeUndefined();
  });

  test('ten thousand registrations for one address become notes quickly', () => {
    const flood = Array.from({ length: 10_000 }, (_, index) =>
      endpointAt(1, `k${index}`, { claims: { name: 'same' } }),
    );
    const merged = merge(flood, NO_PROOFS);
    expect(merged.servers).toHaveLength(1);
    expect(merged.servers[0]?.endpoints.length).toBeLessThanOrEqual(16);
  });
});

describe('different addresses', () => {
  const loopback = endpointAt(1, 'loopback', { claims: { id: 'x', name: 'a', hostname: 'h', localPort: 1 } });
  const relay = endpointAt(2, 'relay', { route: 'relay', claims: { id: 'x', name: 'a', hostname: 'h', localPort: 1 } });

  const dead = { ...relay, result: DEAD };
  const pair = [proof(loopback, relay)];
  const [joined, apart] = [[['loopback', 'relay']], [['loopback'], ['relay']]];
  test.each([
    ['are never joined without proof, whatever they claim', relay, NO_PROOFS, apart],
    ['are joined by proof', relay, { proven: pair, former: [] }, joined],
    ['are not joined by proof if one is dead', dead, { proven: pair, former: [] }, apart],
    ['stay joined by a former proof if one is dead', dead, { proven: [], former: pair }, joined],
    ['are not joined by a former proof if both are healthy', relay, { proven: [], former: pair }, apart],
  ])('%s', (_, other, proofs, expected) => {
    expect(groups(merge([loopback, other], proofs))).toEqual(expected);
  });

  const middle = endpointAt(3, 'middle', { result: DEAD });
  test.each([[[proof(relay, middle), proof(loopback, middle)]], [[proof(middle, relay), proof(middle, loopback)]]])(
    'stay apart if both are healthy and a dead one has a former proof with each: %j',
    (former) => {
      const merged = merge([loopback, middle, relay], { proven: [], former });
      expect(groups(merged)).toEqual([['loopback'], ['relay', 'middle']]);
    },
  );
});

describe('the order of endpoints', () => {
  function order(...endpoints: readonly ProbedEndpoint[]): string[] | undefined {
    const [first, ...rest] = endpoints;
    if (first === undefined) return undefined;
    const proven = rest.map((other) => proof(first, other));
    const dead = endpoints.filter((endpoint) => !isHealthy(endpoint));
    return groups(merge(endpoints, { proven, former: dead.map((other) => proof(first, other)) }))[0];
  }

  test('puts healthy ones first, then sorts by route, latency and id', () => {
    expect(
      order(
        endpointAt(1, 'lan', { route: 'lan', latencyMs: 1 }),
        endpointAt(2, 'relay', { route: 'relay', latencyMs: 1 }),
        endpointAt(3, 'tailnet-slow', { route: 'tailnet', latencyMs: 300 }),
        endpointAt(4, 'tailnet-fast', { route: 'tailnet', latencyMs: 20 }),
        endpointAt(5, 'tailnet-equal', { route: 'tailnet', latencyMs: 49 }),
        endpointAt(6, 'dead', { result: DEAD }),
        endpointAt(7, 'loopback', { latencyMs: 900 }),
      ),
    ).toEqual(['loopback', 'tailnet-equal', 'tailnet-fast', 'tailnet-slow', 'relay', 'lan', 'dead']);
  });

  test('puts an endpoint that failed recently after steady ones of any route, and before failing ones', () => {
    expect(
      order(
        { ...endpointAt(1, 'flapping'), unsteady: true },
        endpointAt(2, 'lan', { route: 'lan', latencyMs: 300 }),
        endpointAt(3, 'dead', { result: DEAD }),
      ),
    ).toEqual(['lan', 'flapping', 'dead']);
  });

  test('follows the preference of routes', () => {
    const addresses = ROUTES.map((route, index) =>
      endpointAt(index + 1, route, { route, latencyMs: 2000 - index * 300 }),
    );
    expect(order(...addresses.toReversed())).toEqual(['loopback', 'tailnet', 'relay', 'url', 'lan']);
  });

  test('takes claims from the most authoritative endpoint, and adds missing ones from the others', () => {
    const lan = endpointAt(1, 'lan', { route: 'lan', claims: { id: 'forged', name: 'evil', hostname: 'h' } });
    const own = endpointAt(2, 'own', { claims: { name: 'mine', directory: '/a', connectedAt: 5 } });
    const merged = merge([lan, own], { proven: [proof(lan, own)], former: [] });
    expect(merged.servers[0]?.claims).toEqual({
      id: 'forged',
      name: 'mine',
      hostname: 'h',
      directory: '/a',
      connectedAt: 5,
    });
  });
});

describe('for all inputs', () => {
  const results: readonly ProbeResult[] = [
    HEALTHY,
    DEAD,
    { status: 'locked', reason: 'HTTP 401' },
    { status: 'unknown' },
    { status: 'untrusted', reason: 'not ours' },
  ];
  const claims = fc.record(
    {
      id: fc.constantFrom('x', 'y'),
      name: fc.constantFrom('a', 'b'),
      directory: fc.constantFrom('/a', '/b'),
      connectedAt: fc.integer({ min: 1, max: 3 }),
    },
    { requiredKeys: [] },
  );
  const arbitraryEndpoint = fc
    .record(
      {
        port: fc.integer({ min: 1, max: 6 }),
        route: fc.constantFrom('loopback' as const, 'relay' as const, 'lan' as const),
        claims,
        result: fc.constantFrom(...results),
        pinned: fc.constant(true),
        latencyMs: fc.integer({ min: 0, max: 2000 }),
      },
      { requiredKeys: ['port', 'route', 'claims', 'result'] },
    )
    .map(({ port, ...fields }) => (key: string) => {
      const isUntrusted = fields.result.status === 'untrusted';
      return endpointAt(port, key, {
        ...fields,
        trust: isUntrusted ? { level: 'untrusted', reason: 'not ours' } : { level: 'trusted' },
      });
    });
  const arbitraryEndpoints = fc
    .array(arbitraryEndpoint, { maxLength: 12 })
    .map((makers) => makers.map((make, index) => make(`k${String(index).padStart(2, '0')}`)));
  const pairs = fc.array(
    fc
      .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }))
      .map(([one, other]): KeyPair => [`http://127.0.0.1:${one}`, `http://127.0.0.1:${other}`]),
    { maxLength: 6 },
  );
  const arbitraryProofs = fc.record({ proven: pairs, former: pairs });

  test('the order of endpoints does not matter', () => {
    fc.assert(
      fc.property(arbitraryEndpoints, arbitraryProofs, fc.infiniteStream(fc.nat()), (endpoints, proofs, dice) => {
        const shuffled = endpoints
          .map((endpoint) => ({ endpoint, at: dice.next().value ?? 0 }))
          .toSorted((one, other) => one.at - other.at)
          .map(({ endpoint }) => endpoint);
        expect(merge(shuffled, proofs)).toEqual(merge(endpoints, proofs));
      }),
    );
  });

  test('merging is idempotent, and every endpoint is in exactly one instance or note', () => {
    fc.assert(
      fc.property(arbitraryEndpoints, arbitraryProofs, (endpoints, proofs) => {
        const { servers, notes } = merge(endpoints, proofs);
        const merged = servers.flatMap((server) => server.endpoints);
        expect(merge(merged, proofs)).toEqual({ servers, notes: [] });
        expect(new Set(merged.map(({ id }) => id)).size).toBe(merged.length);
        expect(merged.length + notes.length).toBe(endpoints.length);
      }),
    );
  });

  test('two healthy addresses are in one instance only if current proofs connect them', () => {
    fc.assert(
      fc.property(arbitraryEndpoints, arbitraryProofs, (endpoints, proofs) => {
        const { servers } = merge(endpoints, proofs);
        const live = new Set(
          endpoints
            .filter((endpoint) => isHealthy(endpoint) && endpoint.candidate.trust.level === 'trusted')
            .map(keyOf),
        );
        const kept = new Set(servers.flatMap((one) => one.endpoints.filter(isHealthy).map(keyOf)));
        const reach = (from: string): Set<string> => {
          const seen = new Set([from]);
          for (const key of seen) {
            for (const [one, other] of proofs.proven) {
              if (!live.has(one) || !live.has(other) || !kept.has(one) || !kept.has(other)) continue;
              if (one === key) seen.add(other);
              if (other === key) seen.add(one);
            }
          }
          return seen;
        };
        for (const { endpoints: addresses } of servers) {
          const healthy = [...new Set(addresses.filter(isHealthy).map(keyOf))];
          for (const key of healthy) expect(reach(healthy[0] ?? key)).toContain(key);
        }
      }),
    );
  });

  describe('on machines with equal claims', () => {
    /** For each machine, whether each of its endpoints answers. */
    const machines = fc.array(fc.array(fc.boolean(), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 5 });
    const routes = ['loopback', 'tailnet', 'relay', 'lan'] as const;

    function buildFleet(alive: readonly (readonly boolean[])[]) {
      const claims = { id: 'x', name: 'work', hostname: 'laptop', localPort: 4096, directory: '/home/user/a' };
      return alive.map((addresses, machine) =>
        addresses.map((up, address) =>
          endpointAt(1000 * (machine + 1) + address, `m${machine}w${address}`, {
            claims,
            route: routes[address] ?? 'url',
            ...(up ? {} : { result: DEAD }),
          }),
        ),
      );
    }

    /** Random pairs of endpoints of one machine: other pairs are never proven. */
    function proofsAmong(fleet: readonly (readonly ProbedEndpoint[])[], dice: () => number): ProofSet {
      const some = (): KeyPair[] =>
        fleet.flatMap((addresses) =>
          addresses
            .slice(1)
            .flatMap((address, index) =>
              dice() % 3 > 0 ? [proof(addresses[dice() % (index + 1)] ?? address, address)] : [],
            ),
        );
      return { proven: some(), former: some() };
    }

    const machineOf = (id: string): string => id.replace(/^test:|w\d+$/g, '');

    test('endpoints of two machines never share an instance, and healthy endpoints connected by proofs always do', () => {
      fc.assert(
        fc.property(machines, fc.infiniteStream(fc.nat()), (alive, numbers) => {
          const fleet = buildFleet(alive);
          const proofs = proofsAmong(fleet, () => numbers.next().value ?? 0);
          const { servers } = merge(fleet.flat(), proofs);
          for (const { endpoints } of servers) expect(new Set(endpoints.map(({ id }) => machineOf(id))).size).toBe(1);
          const live = new Set(fleet.flat().filter(isHealthy).map(keyOf));
          const instanceOf = new Map(
            servers.flatMap(({ key, endpoints }) => endpoints.map((endpoint) => [keyOf(endpoint), key] as const)),
          );
          for (const [one, other] of proofs.proven.filter((pair) => pair.every((key) => live.has(key))))
            expect(instanceOf.get(one)).toBe(instanceOf.get(other));
        }),
      );
    });

    test('a dead endpoint stays with its machine while another endpoint of the machine answers', () => {
      fc.assert(
        fc.property(machines, (alive) => {
          const fleet = buildFleet(alive.map(([, ...rest]) => [true, ...rest]));
          const former = fleet.flatMap(([first, ...rest]) =>
            first ? rest.map((address) => proof(first, address)) : [],
          );
          const proven = former.filter(
            (_, index) => fleet.flatMap(([, ...rest]) => rest)[index]?.result.status === 'healthy',
          );
          expect(merge(fleet.flat(), { proven, former }).servers).toHaveLength(fleet.length);
        }),
      );
    });
  });
});
