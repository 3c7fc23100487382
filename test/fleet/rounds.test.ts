import { expect, test } from 'vitest';

import { type EndpointRecord, MAX_MISSED_ROUNDS } from '../../src/fleet/endpoint-record.ts';
import { EndpointTable } from '../../src/fleet/endpoint-table.ts';
import type { Batch, ProbeOutcome } from '../../src/probing/prober.ts';
import { Rounds } from '../../src/fleet/rounds.ts';
import { deferred } from '../rig/wait.ts';
import { candidate, DEAD, HEALTHY } from './candidates.ts';
import { ManualClock } from './manual-clock.ts';

const INTERVAL_MS = 1000;

/** Rounds over `count` registrations, whose answers the test controls. */
function startRounds(count: number, isAlive: (key: string) => boolean = () => true) {
  const clock = new ManualClock();
  const table = new EndpointTable();
  const closing = new AbortController();
  const keys = Array.from({ length: count }, (_, index) => String(index));
  table.apply(
    'test',
    keys.map((key) => candidate({ key, url: `http://127.0.0.1:${Number(key) + 1}` })),
  );
  /** Keys probed in each round. */
  const probed: string[][] = [];
  let sequence = 0;
  const gates = new Map<string, Promise<void>>();
  const batch: Batch<EndpointRecord> = {
    look: async (record) => {
      const { key, endpoint } = record.candidate;
      probed.at(-1)?.push(key);
      await gates.get(key);
      const outcome: ProbeOutcome = {
        result: isAlive(key) ? HEALTHY : DEAD,
        learnt: {},
        missing: [],
        timedOut: false,
        connection: { endpoint },
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
  const rounds = new Rounds({ clock, intervalMs: INTERVAL_MS, table, batch, isFollowed, onEnd: () => (ended += 1) });
  const running = rounds.keep(closing.signal);
  return {
    rounds,
    followed,
    probed,
    gates,
    ended: () => ended,
    close: async () => {
      closing.abort();
      await running;
    },
    round: async () => {
      probed.push([]);
      await clock.advance(INTERVAL_MS);
    },
  };
}

test('a round probes everything once per interval, and reports its end', async () => {
  const { round, probed, ended, close } = startRounds(3);
  await round();
  await round();
  expect(probed).toEqual([
    ['0', '1', '2'],
    ['0', '1', '2'],
  ]);
  expect(ended()).toBe(2);
  await close();
});

test('a followed endpoint is probed only while it does not answer', async () => {
  const alive = new Set(['0', '1', '2']);
  const { round, probed, followed } = startRounds(3, (key) => alive.has(key));
  await round();
  followed.add('0').add('1');
  alive.delete('1');
  await round();
  expect(probed.at(-1)).toEqual(['2']);
  followed.delete('1');
  await round();
  followed.add('1');
  await round();
  expect(probed.slice(2)).toEqual([
    ['1', '2'],
    ['1', '2'],
  ]);
});

test('a hanging probe delays no round, and is not started twice', async () => {
  const { round, probed, ended, gates, rounds } = startRounds(3);
  const gate = deferred<void>();
  gates.set('1', gate.promise);
  await round();
  await round();
  expect(probed).toEqual([
    ['0', '1', '2'],
    ['0', '2'],
  ]);
  expect(ended()).toBe(0);
  gate.resolve();
  await rounds.settled();
  await round();
  expect(ended()).toBe(3);
});

test('thousands of long dead endpoints are probed in turns, live ones every time', async () => {
  const { round, probed } = startRounds(1201, (key) => key === '1200');
  for (let missed = 0; missed < MAX_MISSED_ROUNDS; missed += 1) await round();
  expect(probed.map((keys) => keys.length)).toEqual([1201, 1201, 1201, 1201, 1201]);
  for (let turn = 0; turn < 3; turn += 1) await round();
  const turns = probed.slice(MAX_MISSED_ROUNDS);
  expect(turns.map((keys) => [keys.length, keys.includes('1200')])).toEqual([
    [501, true],
    [501, true],
    [501, true],
  ]);
  expect(new Set(turns.flat()).size).toBe(1201);
});
