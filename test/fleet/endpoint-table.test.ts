import { describe, expect, test } from 'vitest';

import { EndpointTable } from '../../src/fleet/endpoint-table.ts';
import { type EndpointRecord, STEADY_ROUNDS } from '../../src/fleet/endpoint-record.ts';
import type { ProbeResult } from '../../src/model/instance.ts';
import type { ProbeOutcome } from '../../src/probing/prober.ts';
import { candidate, HEALTHY } from './candidates.ts';

const NOW_MS = 1000;

function outcome(sequence: number, fields: Partial<ProbeOutcome> = {}): ProbeOutcome {
  return {
    result: HEALTHY,
    learnt: {},
    missing: [],
    timedOut: false,
    connection: { endpoint: candidate().endpoint },
    sequence,
    ...fields,
  };
}

const IDLE = { activity: { kind: 'idle' }, running: [] } as const;
const PERMISSION = { kind: 'permission', id: 'per_1', sessionId: 'ses_1', text: 'bash "ls"' } as const;

const DOWN = { result: { status: 'unhealthy', reason: 'down' } } satisfies { readonly result: ProbeResult };

function addRecord(fields?: Parameters<typeof candidate>[0]): EndpointRecord {
  const [record] = new EndpointTable().apply('test', [candidate(fields)]).added;
  if (record === undefined) throw new Error('nothing was added');
  return record;
}

describe('a record of probe results', () => {
  test('keeps the result of a newer probe when an older one ends', () => {
    const record = addRecord();
    expect(record.settle(outcome(2), NOW_MS)).toBe(true);
    expect(record.settle(outcome(1, DOWN), NOW_MS)).toBe(false);
    expect(record.result).toBe(HEALTHY);
  });

  test('counts at most one miss per round, and any answer resets the count', () => {
    const record = addRecord();
    record.settle(outcome(1, DOWN), NOW_MS);
    expect(record.misses).toBe(0);
    record.roundDue = true;
    record.settle(outcome(2, DOWN), NOW_MS);
    record.settle(outcome(3, DOWN), NOW_MS);
    expect(record.misses).toBe(1);
    record.settle(outcome(4, { result: { status: 'locked', reason: '' } }), NOW_MS);
    expect([record.misses, record.lastSeenMs]).toEqual([0, NOW_MS]);
  });

  test('is settled after a healthy result only with an overview, and after a failure immediately', () => {
    const record = addRecord();
    record.settle(outcome(5), NOW_MS);
    expect(record.settledAfter(4)).toBe(false);
    record.settle(outcome(6, { learnt: { status: IDLE } }), NOW_MS);
    expect([record.settledAfter(5), record.settledAfter(6)]).toEqual([true, false]);
    record.settle(outcome(7), NOW_MS);
    expect([record.settledAfter(5), record.settledAfter(6)]).toEqual([true, false]);
    record.settle(outcome(8, DOWN), NOW_MS);
    expect([record.settledAfter(7), record.settledAfter(8)]).toEqual([true, false]);
  });

  test('keeps the last value of an overview part without an answer, and lists the part as stale', () => {
    const record = addRecord();
    record.settle(
      outcome(1, {
        learnt: { status: IDLE, permissions: [PERMISSION], questions: [], session: null },
      }),
      1,
    );
    record.settle(
      outcome(2, {
        learnt: { status: { activity: { kind: 'busy' }, running: ['ses_1'] } },
        missing: ['permissions', 'questions', 'session'],
      }),
      2,
    );
    expect(record.copy().overview).toEqual({
      activity: { kind: 'busy' },
      running: ['ses_1'],
      waiting: [PERMISSION],
      askedAtMs: 2,
      stale: ['permissions', 'questions', 'session'],
    });
    record.settle(outcome(3, { missing: ['status'] }), 3);
    record.settle(outcome(4, DOWN), 4);
    expect(record.copy().overview?.askedAtMs).toBe(2);
    expect(record.copy().lastHealthy).toBe(HEALTHY);
  });

  test('has copies that never change and contain no password', () => {
    const record = addRecord();
    const connection = { ...outcome(1).connection, credential: { username: 'u', password: 'secret' } };
    record.settle(outcome(1, { connection }), NOW_MS);
    const copy = record.copy();
    record.settle(outcome(2, DOWN), NOW_MS);
    expect(copy.result).toBe(HEALTHY);
    expect(JSON.stringify(copy)).not.toContain('secret');
  });
});

describe('an endpoint that failed', () => {
  test('is unsteady until it has answered some rounds in a row', () => {
    const record = addRecord();
    let sequence = 0;
    const round = (fields?: Partial<ProbeOutcome>): boolean => {
      record.roundDue = true;
      record.settle(outcome((sequence += 1), fields), NOW_MS);
      return record.unsteady;
    };
    expect([round(), round(DOWN), record.lapses]).toEqual([false, false, 1]);
    expect([round(), round(), round(DOWN), record.lapses]).toEqual([true, true, false, 2]);
    const steady = Array.from({ length: STEADY_ROUNDS + 1 }, () => round());
    expect(steady).toEqual([...Array.from({ length: STEADY_ROUNDS }, () => true), false]);
    expect(record.copy()).not.toHaveProperty('unsteady');
  });

  test('stays unsteady over any number of tool calls', () => {
    const record = addRecord();
    record.settle(outcome(1), NOW_MS);
    record.settle(outcome(2, DOWN), NOW_MS);
    for (let call = 3; call < 20; call += 1) record.settle(outcome(call), NOW_MS);
    expect([record.unsteady, record.copy().unsteady]).toEqual([true, true]);
  });
});

describe('the displayed latency', () => {
  test('changes only when the measured latency differs much', () => {
    const record = addRecord();
    let sequence = 0;
    const measure = (latencyMs: number): number | undefined => {
      record.settle(outcome((sequence += 1), { latencyMs }), NOW_MS);
      return record.latencyMs;
    };
    // These values lie around a step of the sort order.
    expect([9, 12, 8, 11, 13, 7].map(measure)).toEqual([9, 9, 9, 9, 9, 9]);
    for (let probe = 0; probe < 10; probe += 1) measure(80);
    expect(measure(80)).toBeGreaterThan(40);
  });
});

describe('a scan', () => {
  const REPLACED = { added: 1, removed: 1, changed: true };
  const KEPT = { added: 0, removed: 0, changed: true };

  test.each<[string, Parameters<typeof candidate>[0], object]>([
    ['the same candidate changes nothing', {}, { added: 0, removed: 0, changed: false }],
    ['another address replaces the record', { url: 'http://127.0.0.1:4097' }, REPLACED],
    ['another route replaces the record', { route: 'relay' }, REPLACED],
    ['other headers replace the record', { headers: { a: 'b' } }, REPLACED],
    ['another id replaces the record', { claims: { id: 'x' } }, REPLACED],
    ['another directory replaces the record', { claims: { directory: '/a' } }, REPLACED],
    ['another start replaces the record', { claims: { connectedAt: 5 } }, REPLACED],
    ['another trust replaces the record', { trust: { level: 'untrusted', reason: 'no' } }, REPLACED],
    ['another credential replaces the record', { credential: { password: { kind: 'value', value: 'x' } } }, REPLACED],
    ['another name keeps the record', { claims: { name: 'x' } }, KEPT],
    ['another host keeps the record', { claims: { hostname: 'x' } }, KEPT],
    ['another local port keeps the record', { claims: { localPort: 5 } }, KEPT],
  ])('with %s', (_, fields, expected) => {
    const table = new EndpointTable();
    table.apply('test', [candidate()]);
    const { added, removed, changed } = table.apply('test', [candidate(fields)]);
    expect({ added: added.length, removed: removed.length, changed }).toEqual(expected);
  });

  test('with two candidates of the same key takes the first', () => {
    const table = new EndpointTable();
    table.apply('test', [candidate({ claims: { name: 'a' } }), candidate({ claims: { name: 'b' } })]);
    expect([...table.all()].map(({ candidate: { claims } }) => claims.name)).toEqual(['a']);
  });

  test('of one source does not change the records of other sources', () => {
    const table = new EndpointTable();
    table.apply('one', [candidate()]);
    table.apply('two', [candidate()]);
    expect([...table.all()].map(({ id }) => id)).toEqual(['one:one', 'two:one']);
    table.apply('one', []);
    expect([...table.all()].map(({ id }) => id)).toEqual(['two:one']);
  });

  test('leaves an address healthy only while one of its records is healthy', () => {
    const table = new EndpointTable();
    const { added } = table.apply('test', [candidate({ key: 'a' }), candidate({ key: 'b' })]);
    const key = added[0]?.key ?? '';
    expect([table.has(key), table.isHealthy(key)]).toEqual([true, false]);
    added[1]?.settle(outcome(1), NOW_MS);
    expect(table.isHealthy(key)).toBe(true);
    table.apply('test', [candidate({ key: 'a' })]);
    expect([table.has(key), table.isHealthy(key)]).toEqual([true, false]);
    table.apply('test', []);
    expect(table.has(key)).toBe(false);
  });
});
