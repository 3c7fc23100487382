import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { suspects } from '../../src/identity/suspects.ts';
import type { Claims } from '../../src/model/candidate.ts';
import type { Dialect } from '../../src/model/instance.ts';
import { DEAD, HEALTHY, probed } from '../fleet/candidates.ts';

const endpointAt = (port: number, claims: Claims, fields: Partial<Parameters<typeof probed>[0]> = {}) =>
  probed({ key: `k${port}`, url: `http://127.0.0.1:${port}`, claims, ...fields });

const NOW = 1_000_000;

const pairs = (...endpoints: ReadonlyArray<ReturnType<typeof probed>>): string[] =>
  suspects(endpoints, NOW).map(({ endpoints: [one, other] }) => `${one.candidate.key} ${other.candidate.key}`);

test('endpoints with the same id, or the same port and host name, are suspected', () => {
  expect(pairs(endpointAt(1, { id: 'x' }), endpointAt(2, { id: 'x' }))).toEqual(['k1 k2']);
  expect(
    pairs(endpointAt(1, { localPort: 9, hostname: 'Box' }), endpointAt(2, { localPort: 9, hostname: 'box' })),
  ).toEqual(['k1 k2']);
});

test('endpoints that share only a name, a port, a host or a tunnel port are not suspected', () => {
  expect(pairs(endpointAt(1, { name: 'a', directory: '/a' }), endpointAt(2, { name: 'a', directory: '/a' }))).toEqual(
    [],
  );
  expect(pairs(endpointAt(1, { localPort: 9 }), endpointAt(2, { localPort: 9 }))).toEqual([]);
  expect(pairs(endpointAt(1, { hostname: 'box' }), endpointAt(2, { hostname: 'box' }))).toEqual([]);
  expect(pairs(endpointAt(1, { localPort: 2, hostname: 'box' }), endpointAt(2, { hostname: 'box' }))).toEqual([]);
});

test('only healthy endpoints are suspected', () => {
  expect(pairs(endpointAt(1, { id: 'x' }), endpointAt(2, { id: 'x' }, { result: DEAD }))).toEqual([]);
  expect(
    pairs(endpointAt(1, { id: 'x' }), endpointAt(2, { id: 'x' }, { result: { status: 'locked', reason: '' } })),
  ).toEqual([]);
});

describe('OpenCode 2', () => {
  const service = (port: number, pid: number | undefined, version = '2.1.2', dialect: Dialect = 'opencode-2') =>
    endpointAt(
      port,
      { localPort: 9, hostname: 'box', id: 'x' },
      { result: { ...HEALTHY, dialect, version, ...(pid !== undefined && { pid }) } },
    );

  test('services with the same process and version are suspected', () => {
    expect(pairs(service(1, 7), service(2, 7))).toEqual(['k1 k2']);
  });

  test('services with different processes or versions are not suspected, nor an OpenCode 1', () => {
    expect(pairs(service(1, 7), service(2, 8))).toEqual([]);
    expect(pairs(service(1, 7), service(2, 7, '2.1.3'))).toEqual([]);
    expect(pairs(service(1, 7), endpointAt(2, { localPort: 9, hostname: 'box', id: 'x' }))).toEqual([]);
  });

  test('previews in which the same session is running are suspected', () => {
    const preview = (port: number, running: readonly string[], askedAtMs = NOW) => ({
      ...service(port, undefined, '1.18.18', 'opencode-2-preview'),
      overview: { activity: { kind: 'busy' }, running, waiting: [], askedAtMs } as const,
    });
    expect(pairs(preview(1, ['ses_a', 'ses_b']), preview(2, ['ses_b']))).toEqual(['k1 k2']);
    expect(pairs(preview(1, ['ses_a']), preview(2, ['ses_b']))).toEqual([]);
    expect(pairs(preview(1, []), preview(2, []))).toEqual([]);
    expect(pairs(preview(1, ['ses_a']), preview(2, ['ses_a'], NOW - 60_000))).toEqual([]);
  });
});

test('two registrations of one address are not a pair', () => {
  expect(pairs(endpointAt(1, { id: 'x' }), endpointAt(1, { id: 'x' }, { key: 'again' }))).toEqual([]);
});

test('each of more than six endpoints is paired only with the first', () => {
  const alike = (count: number) => Array.from({ length: count }, (_, index) => endpointAt(index + 1, { id: 'x' }));
  expect(pairs(...alike(6))).toHaveLength(15);
  expect(pairs(...alike(7))).toHaveLength(6);
});

test('the number of pairs is bounded', () => {
  const flood = Array.from({ length: 5000 }, (_, index) =>
    endpointAt(index + 1, { id: 'x', localPort: 9, hostname: 'box' }),
  );
  expect(pairs(...flood).length).toBeLessThanOrEqual(1000);
});

test('the order of the endpoints does not matter', () => {
  const arbitrary = fc.array(
    fc.record({
      port: fc.integer({ min: 1, max: 9 }),
      id: fc.constantFrom('x', 'y'),
      localPort: fc.constantFrom(1, 2),
    }),
    { maxLength: 9 },
  );
  fc.assert(
    fc.property(arbitrary, (list) => {
      const endpoints = list.map(({ port, ...claims }, index) =>
        endpointAt(port, { ...claims, hostname: 'box' }, { key: `k${index}` }),
      );
      expect(pairs(...endpoints.toReversed()).toSorted()).toEqual(pairs(...endpoints).toSorted());
    }),
  );
});
