import { realpath } from 'node:fs/promises';

import { describe, expect, onTestFinished, test } from 'vitest';

import { OVERVIEW_PARTS } from '../../src/model/instance.ts';
import {
  type LookOptions,
  type ProbeOutcome,
  Prober,
  type ProberDeps,
  type ProbeTarget,
} from '../../src/probing/prober.ts';
import { createSameDirectory } from '../../src/probing/same-directory.ts';
import type { FakeOpencode } from '../rig/fake-opencode.ts';
import { startThreadServer } from '../rig/thread-server.ts';
import { until } from '../rig/wait.ts';
import { candidate } from '../fleet/candidates.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { fakeOpencode } from './probe-once.ts';

/** The transport counts real time: a quarter of this is longer than any test. */
const DEADLINE_MS = 600_000;
const FIRST_MS = DEADLINE_MS / 4;
const SECOND_MS = (DEADLINE_MS * 5) / 8;

interface NamedTarget extends ProbeTarget {
  readonly name: string;
  standing: ProbeTarget['standing'];
}

interface Rig {
  readonly prober: Prober<NamedTarget>;
  readonly clock: ManualClock;
  /** `name status` of each outcome. */
  readonly told: string[];
}

function rig(slots: number, deps: Partial<ProberDeps<NamedTarget>> = {}): Rig {
  const clock = new ManualClock();
  const told: string[] = [];
  const prober = new Prober<NamedTarget>({
    clock,
    slots,
    deadlineMs: DEADLINE_MS,
    sameDirectory: createSameDirectory(realpath),
    resolveCredential: async () => undefined,
    onOutcome: (target, { result }) => void told.push(`${target.name} ${result.status}`),
    ...deps,
  });
  onTestFinished(() => prober.close());
  return { prober, clock, told };
}

function fakes(count: number): Promise<FakeOpencode[]> {
  return Promise.all(Array.from({ length: count }, () => fakeOpencode()));
}

function target(
  name: string,
  { url }: { readonly url: string },
  standing: ProbeTarget['standing'] = 'known',
): NamedTarget {
  return { name, candidate: candidate({ key: name, url }), standing };
}

function hang(...hung: readonly FakeOpencode[]): void {
  for (const fake of hung) fake.override('GET /global/health', { kind: 'hang' });
}

const PLAIN: LookOptions = { parts: [] };

function status(outcome: ProbeOutcome | undefined): string | undefined {
  return outcome?.result.status;
}

/** The number of these with an open request. */
function asked(list: readonly FakeOpencode[]): number {
  return list.filter(({ load }) => load.current > 0).length;
}

describe('slots', () => {
  test('limit the probes in flight; each holds one slot for all its requests', async () => {
    const list = await fakes(12);
    const { prober } = rig(3);
    const batch = prober.batch();
    const looks = list.map((fake, index) => batch.look(target(`t${index}`, fake), { parts: OVERVIEW_PARTS }));
    expect((await Promise.all(looks)).map(status)).toEqual(list.map(() => 'healthy'));
    expect(prober.counters).toEqual({ probes: 12, inFlight: 0, maxInFlight: 3, requests: 48 });
  });

  test('are at most a quarter suspects’; the others are answered meanwhile', async () => {
    const hung = await fakes(10);
    const live = await fakes(20);
    hang(...hung);
    const { prober } = rig(8);
    const batch = prober.batch();
    for (const [index, fake] of hung.entries()) void batch.look(target(`hung${index}`, fake, 'suspect'), PLAIN);
    const looks = live.map((fake, index) => batch.look(target(`live${index}`, fake), PLAIN));
    expect((await Promise.all(looks)).map(status)).toEqual(live.map(() => 'healthy'));
    await until('two suspects to be asked', () => asked(hung) === 2);
    await settle();
    expect([asked(hung), prober.counters.inFlight]).toEqual([2, 2]);
  });

  test.each([1, 4])('of %i, one passes from one suspect to the next', async (slots) => {
    const list = await fakes(5);
    const { prober } = rig(slots);
    const batch = prober.batch();
    const looks = list.map((fake, index) => batch.look(target(`t${index}`, fake, 'suspect'), PLAIN));
    expect((await Promise.all(looks)).map(status)).toEqual(list.map(() => 'healthy'));
    expect(prober.counters.maxInFlight).toBe(1);
  });

  test('go to healthy endpoints first, then to new ones, then to suspects', async () => {
    const [first, suspect, fresh, known] = await Promise.all([
      fakeOpencode(),
      fakeOpencode(),
      fakeOpencode(),
      fakeOpencode(),
    ]);
    hang(first);
    const { prober, clock, told } = rig(1);
    const batch = prober.batch();
    const looks = [
      batch.look(target('first', first), PLAIN),
      batch.look(target('suspect', suspect, 'suspect'), PLAIN),
      batch.look(target('fresh', fresh, 'fresh'), PLAIN),
      batch.look(target('known', known), PLAIN),
    ];
    await until('the first to be asked', () => asked([first]) === 1);
    await clock.advance(FIRST_MS);
    await Promise.all(looks.slice(1));
    expect(told).toEqual(['known healthy', 'fresh healthy', 'suspect healthy']);
  });

  test('stay a quarter suspects’ during a flood of new endpoints', async () => {
    const flood = await fakes(8);
    const suspect = await fakeOpencode();
    hang(...flood);
    const { prober } = rig(4);
    const batch = prober.batch();
    for (const [index, fake] of flood.entries()) void batch.look(target(`new${index}`, fake, 'fresh'), PLAIN);
    const outcome = batch.look(target('suspect', suspect, 'suspect'), PLAIN);
    await until('the slots to be full', () => prober.counters.inFlight === 4);
    // Frees one slot, which the next new endpoint would hold as long as the others hold theirs.
    const first = flood.find(({ load }) => load.current > 0);
    await first?.close();
    expect(status(await outcome)).toBe('healthy');
  });
});

describe('two looks', () => {
  test('a look that ran out of time is repeated among the suspects, with more time', async () => {
    const fake = await fakeOpencode();
    hang(fake);
    const { prober, clock, told } = rig(4);
    const looking = prober.batch().look(target('a', fake, 'fresh'), PLAIN);
    await until('the first look', () => fake.count('GET /global/health') === 1);
    await clock.advance(FIRST_MS);
    await until('the second look', () => fake.count('GET /global/health') === 2);
    expect(told).toEqual([]);
    await clock.advance(SECOND_MS - 1);
    expect(told).toEqual([]);
    await clock.advance(1);
    expect((await looking)?.result).toEqual({
      status: 'unhealthy',
      reason: `${fake.url} gave no answer within ${FIRST_MS + SECOND_MS} ms`,
    });
  });

  test('the second look succeeds if a starting opencode swallowed the first', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'hang' }, 1);
    const { prober, clock, told } = rig(4);
    const looking = prober.batch().look(target('a', fake, 'fresh'), PLAIN);
    await until('the first look', () => fake.count('GET /global/health') === 1);
    await clock.advance(FIRST_MS);
    expect(status(await looking)).toBe('healthy');
    expect(told).toEqual(['a healthy']);
  });

  test('an answer that arrives while this process is busy past the limit counts', async () => {
    await using server = await startThreadServer({
      '/global/health': { healthy: true, version: '1.18.33' },
      '/path': { directory: '/home/user/a', worktree: '/home/user/a' },
    });
    const wakes: Array<() => void> = [];
    const { prober } = rig(1, {
      clock: { now: () => 0, monotonic: () => 0, sleep: () => new Promise((resolve) => wakes.push(resolve)) },
    });
    const looking = prober.batch().look(target('a', server), { ...PLAIN, urgent: 'look' });
    await server.asked('/path');
    server.blockUntilAnswered('/path');
    for (const wake of wakes) wake();
    expect(status(await looking)).toBe('healthy');
  });

  test('an endpoint whose headers are missing is locked, and nothing is sent to it', async () => {
    const fake = await fakeOpencode();
    const { prober } = rig(1, { withHeaders: () => Promise.reject(new Error('header X-Token: it is not set')) });
    const headers = { 'X-Token': { kind: 'unset', variable: 'TOKEN' } } as const;
    const one = {
      name: 'one',
      candidate: candidate({ key: 'one', url: fake.url, headers }),
      standing: 'fresh',
    } as const;
    const outcome = await prober.batch().look(one, PLAIN);
    expect(outcome?.result).toEqual({ status: 'locked', reason: 'header X-Token: it is not set' });
    expect(prober.counters.requests).toBe(0);
  });

  test('a refusal is settled by the first look', async () => {
    const fake = await fakeOpencode();
    await fake.close();
    const { prober } = rig(4);
    expect(status(await prober.batch().look(target('a', fake, 'fresh'), PLAIN))).toBe('unhealthy');
    expect(prober.counters).toMatchObject({ probes: 1, requests: 1 });
  });

  test('an endpoint is a suspect once its first look hung', async () => {
    const [hung, live] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    hang(hung);
    const { prober, clock } = rig(1);
    const first = prober.batch();
    const slow = target('hung', hung);
    void first.look(slow, PLAIN);
    await until('the first look', () => hung.count('GET /global/health') === 1);
    first.end();
    await clock.advance(FIRST_MS);
    const batch = prober.batch();
    void batch.look(slow, PLAIN);
    // The other one goes first, although it was added later.
    const other = batch.look(target('live', live, 'fresh'), PLAIN);
    expect(status(await other)).toBe('healthy');
  });

  test('a hung route does not hide the identity, and only missing parts are asked again', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /experimental/session', { kind: 'hang' }, 1);
    const { prober, clock, told } = rig(4);
    const looking = prober.batch().look(target('a', fake, 'fresh'), { parts: OVERVIEW_PARTS });
    await until('the other routes', () => fake.count('GET /experimental/session') === 1 && fake.load.current === 1);
    await clock.advance(FIRST_MS);
    const outcome = await looking;
    expect(told).toEqual(['a healthy', 'a healthy']);
    expect(outcome).toMatchObject({ result: { status: 'healthy' }, learnt: { session: null }, missing: [] });
    expect([
      fake.count('GET /global/health'),
      fake.count('GET /session/status'),
      fake.count('GET /experimental/session'),
    ]).toEqual([1, 1, 2]);
  });
});

describe('passwords', () => {
  test('are read before a slot is taken: a hung vault delays no other probe', async () => {
    const [locked, open] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const { prober, clock, told } = rig(1, {
      resolveCredential: ({ key }) => (key === 'locked' ? new Promise(() => {}) : Promise.resolve(undefined)),
    });
    const batch = prober.batch();
    void batch.look(target('locked', locked), PLAIN);
    expect(status(await batch.look(target('open', open), PLAIN))).toBe('healthy');
    expect(told).toEqual(['open healthy']);
    await clock.advance(DEADLINE_MS / 2);
    await until('the other to be asked without', () => told[1] === 'locked healthy');
  });

  test('that hang by the hundred delay no other probe', async () => {
    const open = await fakeOpencode();
    const { prober, clock } = rig(1, {
      resolveCredential: ({ key }) => (key === 'open' ? Promise.resolve(undefined) : new Promise(() => {})),
    });
    const batch = prober.batch();
    for (let index = 0; index < 200; index += 1) void batch.look(target(`locked${index}`, open), PLAIN);
    const looking = batch.look(target('open', open), PLAIN);
    await clock.advance(1000);
    expect(status(await looking)).toBe('healthy');
  });

  test('that are not read in time are not sent, and the refusal says why', async () => {
    const fake = await fakeOpencode({ password: 'right' });
    const { prober, clock } = rig(1, {
      resolveCredential: (_, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('slow')))),
    });
    const looking = prober.batch().look(target('a', fake), PLAIN);
    await clock.advance(DEADLINE_MS / 2);
    expect((await looking)?.result).toEqual({
      status: 'locked',
      reason: `${fake.url} answered HTTP 401: timed out after ${DEADLINE_MS / 2} ms reading its password`,
    });
  });

  test('that cannot be read are named in the refusal', async () => {
    const fake = await fakeOpencode({ password: 'right' });
    const { prober } = rig(1, { resolveCredential: () => Promise.reject(new Error('no such file')) });
    expect((await prober.batch().look(target('a', fake), PLAIN))?.result).toMatchObject({
      status: 'locked',
      reason: expect.stringContaining('no such file'),
    });
  });

  test('are sent, and are in the outcome’s connection', async () => {
    const fake = await fakeOpencode({ password: 'right' });
    const credential = { username: 'opencode', password: 'right' };
    const { prober } = rig(1, { resolveCredential: async () => credential });
    expect(await prober.batch().look(target('a', fake), PLAIN)).toMatchObject({
      result: { status: 'healthy' },
      connection: { credential },
    });
  });
});

describe('urgent looks', () => {
  test('go first, and take no extra slot', async () => {
    const running = await fakeOpencode();
    const waiting = await fakes(4);
    const urgent = await fakeOpencode();
    hang(running);
    const { prober, clock, told } = rig(1);
    const batch = prober.batch();
    void batch.look(target('running', running), PLAIN);
    await until('the slot to be taken', () => asked([running]) === 1);
    const looks = waiting.map((fake, index) => batch.look(target(`waiting${index}`, fake), PLAIN));
    await settle();
    const looking = batch.look(target('urgent', urgent), { parts: [], urgent: 'look' });
    await settle();
    await clock.advance(FIRST_MS);
    await Promise.all([looking, ...looks]);
    expect(told[0]).toBe('urgent healthy');
    expect(prober.counters.maxInFlight).toBe(1);
  });

  test('that run out of time are repeated by the caller, and are no outcome', async () => {
    const fake = await fakeOpencode();
    hang(fake);
    const { prober, clock, told } = rig(4);
    const batch = prober.batch();
    const slow = target('a', fake);
    const looking = batch.look(slow, { parts: [], urgent: 'look' });
    await until('the look', () => asked([fake]) === 1);
    await clock.advance(FIRST_MS);
    expect(await looking).toMatchObject({ result: { status: 'unhealthy' }, timedOut: true });
    expect(told).toEqual([]);
    const again = batch.look(slow, { parts: [], urgent: 'recheck' });
    await until('the second look', () => fake.count('GET /global/health') === 2);
    await clock.advance(SECOND_MS);
    expect(status(await again)).toBe('unhealthy');
    expect(told).toEqual(['a unhealthy']);
  });
});

describe('batches', () => {
  test('join an open look, which then asks for the parts of both', async () => {
    const [blocker, fake] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    hang(blocker);
    const { prober, clock } = rig(1);
    const one = prober.batch();
    const other = prober.batch();
    void one.look(target('blocker', blocker), PLAIN);
    await until('the slot to be taken', () => asked([blocker]) === 1);
    const shared = target('a', fake);
    const looks = [one.look(shared, PLAIN), other.look(shared, { parts: OVERVIEW_PARTS }), one.look(shared, PLAIN)];
    await settle();
    await clock.advance(FIRST_MS);
    const outcomes = await Promise.all(looks);
    expect(outcomes[0]).toBe(outcomes[1]);
    expect(outcomes[0]?.learnt).toMatchObject({ permissions: [] });
    expect(fake.count('GET /global/health')).toBe(1);
  });

  test('do not join a running look that asks for fewer parts', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'hang' }, 1);
    const { prober, clock } = rig(2);
    const batch = prober.batch();
    const shared = target('a', fake);
    void batch.look(shared, PLAIN);
    await until('the plain look', () => fake.count('GET /path') === 1);
    const outcome = await batch.look(shared, { parts: ['permissions'] });
    expect(outcome?.learnt).toEqual({ permissions: [] });
    await clock.advance(FIRST_MS);
  });

  test('drop waiting looks that no other batch wants when they end', async () => {
    const [blocker, mine, shared] = await Promise.all([fakeOpencode(), fakeOpencode(), fakeOpencode()]);
    hang(blocker);
    const { prober, clock } = rig(1);
    const one = prober.batch();
    const other = prober.batch();
    const both = target('shared', shared);
    const looks = [
      one.look(target('blocker', blocker), PLAIN),
      one.look(target('mine', mine), PLAIN),
      one.look(both, PLAIN),
    ];
    const kept = other.look(both, PLAIN);
    await until('the slot to be taken', () => asked([blocker]) === 1);
    one.end();
    expect(await Promise.all(looks)).toEqual([undefined, undefined, undefined]);
    await clock.advance(FIRST_MS);
    expect(status(await kept)).toBe('healthy');
    await settle();
    expect(mine.count('GET /global/health')).toBe(0);
    expect(await one.look(both, PLAIN)).toBeUndefined();
  });

  test('drop waiting second looks when they end', async () => {
    const hung = await fakes(3);
    hang(...hung);
    const { prober, clock } = rig(4);
    const batch = prober.batch();
    for (const [index, fake] of hung.entries()) void batch.look(target(`t${index}`, fake), PLAIN);
    await until('all to be asked', () => prober.counters.inFlight === 3);
    await clock.advance(FIRST_MS);
    await until('one second look', () => prober.counters.probes === 4);
    batch.end();
    await clock.advance(10 * DEADLINE_MS);
    expect(prober.counters).toMatchObject({ probes: 4, inFlight: 0 });
  });
});

test('closing ends all requests and waits, and there are no outcomes afterwards', async () => {
  const hung = await fakes(4);
  hang(...hung.slice(1));
  hung[0]?.override('GET /experimental/session', { kind: 'hang' });
  const { prober, clock, told } = rig(2, {
    resolveCredential: ({ key }) => (key === 't3' ? new Promise(() => {}) : Promise.resolve(undefined)),
  });
  const batch = prober.batch();
  const looks = hung.map((fake, index) => batch.look(target(`t${index}`, fake), { parts: ['session'] }));
  await until('the slots to be taken', () => asked(hung) === 2 && hung[0]?.count('GET /experimental/session') === 1);
  prober.close();
  prober.close();
  expect(await Promise.all(looks)).toEqual(hung.map(() => undefined));
  await until('the requests to end', () => asked(hung) === 0);
  expect(told).toEqual([]);
  expect(clock.due()).toBe(0);
  expect(await prober.batch().look(target('late', hung[0]!), PLAIN)).toBeUndefined();
});
