import { expect, test } from 'vitest';

import { type EndpointRecord, MAX_MISSED_ROUNDS } from '../../src/fleet/endpoint-record.ts';
import { EndpointTable } from '../../src/fleet/endpoint-table.ts';
import type { Batch, ProbeOutcome } from '../../src/probing/prober.ts';
import { Rounds } from '../../src/fleet/rounds.ts';
import { candidate, DEAD, HEALTHY } from './candidates.ts';
import { ManualClock } from './manual-clock.ts';

const INTERVAL_MS = 1000;

/** `count` registrations in a table, and rounds over them whose answers the test controls. */
function rig(count: number, isAlive: (record: EndpointRecord) => boolean) {
  const clock = new ManualClock();
  const table = new EndpointTable();
  const controller = new AbortController();
  const { added } = table.apply(
    'test',
    Array.from({ length: count }, (_, index) =>
      candidate({ key: String(index), url: `http://127.0.0.1:${index + 1}` }),
    ),
  );
  const asked: string[][] = [];
  let sequence = 0;
  const held = new Map<string, () => void>();
  const hold = new Set<string>();
  const batch: Batch<EndpointRecord> = {
    look: async (record) => {
      asked.at(-1)?.push(record.candidate.key);
      if (hold.has(record.candidate.key)) await new Promise<void>((resolve) => held.set(record.candidate.key, resolve));
      const outcome: ProbeOutcome = {
        result: isAlive(record) ? HEALTHY : { status: 'unhealthy', reason: DEAD.status },
        learnt: {},
        missing: [],
        timedOut: false,
        connection: { endpoint: record.candidate.endpoint },
        sequence: (sequence += 1),
      };
      record.settle(outcome, clock.now());
      return outcome;
    },
    end: () => {},
  };
  let ended = 0;
  const followed = new Set<string>();
  const isFollowed = ({ candidate }: EndpointRecord): boolean => followed.has(candidate.key);
  const rounds = new Rounds({
    clock,
    intervalMs: INTERVAL_MS,
    table,
    batch,
    isFollowed,
    onEnd: () => (ended += 1),
  });
  return {
    rounds,
    followed,
    added,
    asked,
    hold,
    release: (key: string) => held.get(key)?.(),
    ended: () => ended,
    keep: () => rounds.keep(controller.signal),
    stop: () => controller.abort(),
    round: async () => {
      asked.push([]);
      await clock.advance(INTERVAL_MS);
    },
  };
}

test('a round probes everything once per interval, and reports its end', async () => {
  const { keep, round, asked, ended, stop } = rig(3, () => true);
  const kept = keep();
  await round();
  await round();
  expect(asked).toEqual([
    ['0', '1', '2'],
    ['0', '1', '2'],
  ]);
  expect(ended()).toBe(2);
  stop();
  await kept;
});

test('a followed endpoint is probed only while it does not answer', async () => {
  const alive = new Set(['0', '1', '2']);
  const { keep, round, asked, followed } = rig(3, ({ candidate: { key } }) => alive.has(key));
  void keep();
  await round();
  followed.add('0').add('1');
  alive.delete('1');
  await round();
  expect(asked.at(-1)).toEqual(['2']);
  followed.delete('1');
  await round();
  followed.add('1');
  await round();
  expect(asked.slice(2)).toEqual([
    ['1', '2'],
    ['1', '2'],
  ]);
});

test('a hanging probe delays no round, and is not doubled', async () => {
  const { keep, round, asked, ended, hold, release, rounds } = rig(3, () => true);
  hold.add('1');
  void keep();
  await round();
  await round();
  expect(asked).toEqual([
    ['0', '1', '2'],
    ['0', '2'],
  ]);
  expect(ended()).toBe(0);
  release('1');
  await rounds.settled();
  await round();
  expect(ended()).toBe(2);
});

test('thousands of long dead endpoints are probed in turns, live ones every time', async () => {
  const { keep, round, asked } = rig(1201, ({ candidate: { key } }) => key === '1200');
  void keep();
  for (let missed = 0; missed < MAX_MISSED_ROUNDS; missed += 1) await round();
  expect(asked.map((keys) => keys.length)).toEqual([1201, 1201, 1201, 1201, 1201]);
  for (let turn = 0; turn < 3; turn += 1) await round();
  const turns = asked.slice(MAX_MISSED_ROUNDS);
  expect(turns.map((keys) => [keys.length, keys.includes('1200')])).toEqual([
    [501, true],
    [501, true],
    [501, true],
  ]);
  expect(new Set(turns.flat()).size).toBe(1201);
});
