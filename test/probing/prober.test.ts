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
import type { FakeOpencode, FakeOptions } from '../rig/fake/fake-opencode.ts';
import { startThreadServer } from '../rig/thread-server.ts';
import { until } from '../rig/wait.ts';
import { candidate } from '../fleet/candidates.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { fakeOpencode, server } from './probe-once.ts';

/** The transport counts real time: a quarter of this is longer than any test. */
const DEADLINE_MS = 600_000;
const FIRST_MS = DEADLINE_MS / 4;
const SECOND_MS = (DEADLINE_MS * 5) / 8;

interface NamedTarget extends ProbeTarget {
  readonly name: string;
}

interface FakeTarget extends NamedTarget {
  readonly fake: FakeOpencode;
}

interface TargetOptions extends FakeOptions {
  readonly standing?: ProbeTarget['standing'];
  /** It never answers. */
  readonly hangs?: boolean;
}

async function target(
  name: string,
  { standing = 'known', hangs = false, ...options }: TargetOptions = {},
): Promise<FakeTarget> {
  const fake = await fakeOpencode(options);
  if (hangs) fake.override('GET /global/health', { kind: 'hang' });
  return { name, fake, candidate: candidate({ key: name, url: fake.url }), standing };
}

function targets(count: number, options?: TargetOptions): Promise<FakeTarget[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => target(`t${index}`, options)));
}

function rig(slots: number, deps: Partial<ProberDeps<NamedTarget>> = {}) {
  const clock = new ManualClock();
  /** `name status` of each. */
  const outcomes: string[] = [];
  const prober = new Prober<NamedTarget>({
    clock,
    slots,
    deadlineMs: DEADLINE_MS,
    sameDirectory: createSameDirectory(realpath),
    resolveCredential: async () => undefined,
    onOutcome: ({ name }, { result }) => void outcomes.push(`${name} ${result.status}`),
    ...deps,
  });
  onTestFinished(() => prober.close());
  const batch = prober.batch();
  const look = (one: NamedTarget, options: LookOptions = PLAIN) => batch.look(one, options);
  return { prober, clock, outcomes, batch, look };
}

const PLAIN: LookOptions = { parts: [] };

function status(outcome: ProbeOutcome | undefined): string | undefined {
  return outcome?.result.status;
}

/** How many of these have an open request. */
function countOpen(...list: readonly FakeTarget[]): number {
  return list.filter(({ fake }) => fake.load.current > 0).length;
}

const healths = ({ fake }: FakeTarget): number => fake.count('GET /global/health');

describe('slots', () => {
  test('limit the probes in flight; each probe holds one slot for all its requests', async () => {
    const list = await targets(12);
    const { prober, look } = rig(3);
    const outcomes = await Promise.all(list.map((one) => look(one, { parts: OVERVIEW_PARTS })));
    expect(outcomes.map(status)).toEqual(list.map(() => 'healthy'));
    expect(prober.counters).toEqual({ probes: 12, inFlight: 0, maxInFlight: 3, requests: 48 });
  });

  test('serve suspects with at most a quarter, and other endpoints with the rest', async () => {
    const hung = await targets(10, { standing: 'suspect', hangs: true });
    const live = await targets(20);
    const { prober, look } = rig(8);
    for (const one of hung) void look(one);
    expect((await Promise.all(live.map((one) => look(one)))).map(status)).toEqual(live.map(() => 'healthy'));
    await until('requests to two suspects', () => countOpen(...hung) === 2);
    await settle();
    expect([countOpen(...hung), prober.counters.inFlight]).toEqual([2, 2]);
  });

  test.each([1, 4])('of %i: suspects share one, one after the other', async (slots) => {
    const list = await targets(5, { standing: 'suspect' });
    const { prober, look } = rig(slots);
    expect((await Promise.all(list.map((one) => look(one)))).map(status)).toEqual(list.map(() => 'healthy'));
    expect(prober.counters.maxInFlight).toBe(1);
  });

  test('go to healthy endpoints first, then to new ones, then to suspects', async () => {
    const first = await target('first', { hangs: true });
    const suspect = await target('suspect', { standing: 'suspect' });
    const fresh = await target('fresh', { standing: 'fresh' });
    const known = await target('known');
    const { clock, outcomes, look } = rig(1);
    const looks = [first, suspect, fresh, known].map((one) => look(one));
    await until('the first request', () => countOpen(first) === 1);
    await clock.advance(FIRST_MS);
    await Promise.all(looks.slice(1));
    expect(outcomes).toEqual(['known healthy', 'fresh healthy', 'suspect healthy']);
  });

  test('remain reserved for suspects, a quarter of them, during a flood of new endpoints', async () => {
    const flood = await targets(8, { standing: 'fresh', hangs: true });
    const suspect = await target('suspect', { standing: 'suspect' });
    const { prober, look } = rig(4);
    for (const one of flood) void look(one);
    const outcome = look(suspect);
    await until('the slots to be full', () => prober.counters.inFlight === 4);
    // Frees one slot, which the next new endpoint would hold as long as the others hold theirs.
    await flood.find((one) => countOpen(one) === 1)?.fake.close();
    expect(status(await outcome)).toBe('healthy');
  });
});

describe('two looks', () => {
  test('a look that timed out is repeated among the suspects, with a longer timeout', async () => {
    const hung = await target('a', { standing: 'fresh', hangs: true });
    const { clock, outcomes, look } = rig(4);
    const looking = look(hung);
    await until('the first look', () => healths(hung) === 1);
    await clock.advance(FIRST_MS);
    await until('the second look', () => healths(hung) === 2);
    await clock.advance(SECOND_MS - 1);
    expect(outcomes).toEqual([]);
    await clock.advance(1);
    expect((await looking)?.result).toEqual({
      status: 'unhealthy',
      reason: `${hung.fake.url} gave no answer within ${FIRST_MS + SECOND_MS} ms`,
    });
  });

  test('the second look succeeds if a starting opencode swallowed the first', async () => {
    const one = await target('a', { standing: 'fresh' });
    one.fake.override('GET /global/health', { kind: 'hang' }, 1);
    const { clock, outcomes, look } = rig(4);
    const looking = look(one);
    await until('the first look', () => healths(one) === 1);
    await clock.advance(FIRST_MS);
    expect(status(await looking)).toBe('healthy');
    expect(outcomes).toEqual(['a healthy']);
  });

  test('an answer counts if it arrived while this process was busy beyond the timeout', async () => {
    await using server = await startThreadServer({
      '/global/health': { healthy: true, version: '1.18.33' },
      '/path': { directory: '/home/user/a', worktree: '/home/user/a' },
    });
    const wakes: Array<() => void> = [];
    const { look } = rig(1, {
      clock: { now: () => 0, monotonic: () => 0, sleep: () => new Promise((resolve) => wakes.push(resolve)) },
    });
    const one: NamedTarget = { name: 'a', candidate: candidate({ url: server.url }), standing: 'known' };
    const looking = look(one, { ...PLAIN, urgent: 'look' });
    await server.asked('/path');
    server.blockUntilAnswered('/path');
    for (const wake of wakes) wake();
    expect(status(await looking)).toBe('healthy');
  });

  test('a refused connection needs no second look', async () => {
    const one = await target('a', { standing: 'fresh' });
    await one.fake.close();
    const { prober, look } = rig(4);
    expect(status(await look(one))).toBe('unhealthy');
    expect(prober.counters).toMatchObject({ probes: 1, requests: 1 });
  });

  test('an endpoint is a suspect once its first look hung', async () => {
    const slow = await target('slow', { hangs: true });
    const live = await target('live', { standing: 'fresh' });
    const { prober, clock, batch, look } = rig(1);
    void look(slow);
    await until('the first look', () => healths(slow) === 1);
    batch.end();
    await clock.advance(FIRST_MS);
    const later = prober.batch();
    void later.look(slow, PLAIN);
    // The other one goes first, although it was added later.
    expect(status(await later.look(live, PLAIN))).toBe('healthy');
  });

  test('a hung route does not hide the identity, and only missing parts are requested again', async () => {
    const { fake, ...one } = await target('a', { standing: 'fresh' });
    fake.override('GET /experimental/session', { kind: 'hang' }, 1);
    const { clock, outcomes, look } = rig(4);
    const looking = look(one, { parts: OVERVIEW_PARTS });
    await until('the other routes', () => fake.count('GET /experimental/session') === 1 && fake.load.current === 1);
    await clock.advance(FIRST_MS);
    expect(await looking).toMatchObject({ result: { status: 'healthy' }, learnt: { session: null }, missing: [] });
    expect(outcomes).toEqual(['a healthy', 'a healthy']);
    const routes = ['GET /global/health', 'GET /session/status', 'GET /experimental/session'] as const;
    expect(routes.map((route) => fake.count(route))).toEqual([1, 1, 2]);
  });
});

describe('passwords', () => {
  const hangsFor = (isHung: (key: string) => boolean): Partial<ProberDeps<NamedTarget>> => ({
    resolveCredential: ({ key }) => (isHung(key) ? new Promise(() => {}) : Promise.resolve(undefined)),
  });

  test('are read before a slot is taken: a hung vault delays no other probe', async () => {
    const { clock, outcomes, look } = rig(
      1,
      hangsFor((key) => key === 'locked'),
    );
    void look(await target('locked'));
    expect(status(await look(await target('open')))).toBe('healthy');
    expect(outcomes).toEqual(['open healthy']);
    await clock.advance(DEADLINE_MS / 2);
    await until('the request without it', () => outcomes[1] === 'locked healthy');
  });

  test('that hang delay no other probe, even hundreds of them', async () => {
    const open = await target('open');
    const { clock, look } = rig(
      1,
      hangsFor((key) => key !== 'open'),
    );
    for (let index = 0; index < 200; index += 1)
      void look({ ...open, candidate: candidate({ key: `locked${index}`, url: open.fake.url }) });
    const looking = look(open);
    await clock.advance(1000);
    expect(status(await looking)).toBe('healthy');
  });

  test('that cannot be read are named in the refusal', async () => {
    const { look } = rig(1, { resolveCredential: () => Promise.reject(new Error('no such file')) });
    expect((await look(await target('a', { password: 'right' })))?.result).toMatchObject({
      status: 'locked',
      reason: expect.stringContaining('no such file'),
    });
  });

  test('are sent, and are in the outcome’s connection', async () => {
    const credential = { username: 'opencode', password: 'right' };
    const { look } = rig(1, { resolveCredential: async () => credential });
    expect(await look(await target('a', { password: 'right' }))).toMatchObject({
      result: { status: 'healthy' },
      connection: { credential },
    });
  });
});

describe('headers that are secrets', () => {
  const withHeader = (url: string): NamedTarget => {
    const headers = { 'X-Token': { kind: 'unset', variable: 'TOKEN' } } as const;
    return { name: 'one', candidate: candidate({ url, headers }), standing: 'fresh' };
  };

  test('lock an endpoint if they cannot be read: nothing is sent', async () => {
    const { fake } = await target('one');
    const { prober, look } = rig(1, { withHeaders: () => Promise.reject(new Error('header X-Token: it is not set')) });
    const outcome = await look(withHeader(fake.url));
    expect(outcome?.result).toEqual({ status: 'locked', reason: 'header X-Token: it is not set' });
    expect(prober.counters.requests).toBe(0);
  });

  test('are sent with every request', async () => {
    const seen: unknown[] = [];
    const url = await server(({ headers }, response) => {
      seen.push(headers['x-token']);
      response.writeHead(500).end();
    });
    const { look } = rig(1, { withHeaders: async (endpoint) => ({ ...endpoint, headers: { 'X-Token': 'secret' } }) });
    await look(withHeader(url));
    expect(new Set(seen)).toEqual(new Set(['secret']));
  });
});

describe('urgent looks', () => {
  test('go first, and take no extra slot', async () => {
    const running = await target('running', { hangs: true });
    const waiting = await targets(4);
    const urgent = await target('urgent');
    const { prober, clock, outcomes, look } = rig(1);
    void look(running);
    await until('the slot to be taken', () => countOpen(running) === 1);
    const looks = waiting.map((one) => look(one));
    await settle();
    const looking = look(urgent, { parts: [], urgent: 'look' });
    await settle();
    await clock.advance(FIRST_MS);
    await Promise.all([looking, ...looks]);
    expect(outcomes[0]).toBe('urgent healthy');
    expect(prober.counters.maxInFlight).toBe(1);
  });

  test('that time out are repeated by the caller and give no outcome', async () => {
    const slow = await target('a', { hangs: true });
    const { clock, outcomes, look } = rig(4);
    const looking = look(slow, { parts: [], urgent: 'look' });
    await until('the look', () => countOpen(slow) === 1);
    await clock.advance(FIRST_MS);
    expect(await looking).toMatchObject({ result: { status: 'unhealthy' }, timedOut: true });
    expect(outcomes).toEqual([]);
    const again = look(slow, { parts: [], urgent: 'recheck' });
    await until('the second look', () => healths(slow) === 2);
    await clock.advance(SECOND_MS);
    expect(status(await again)).toBe('unhealthy');
    expect(outcomes).toEqual(['a unhealthy']);
  });
});

describe('batches', () => {
  test('join an open look, which then asks for the parts of both', async () => {
    const [blocker, shared] = [await target('blocker', { hangs: true }), await target('a')];
    const { prober, clock, look } = rig(1);
    void look(blocker);
    await until('the slot to be taken', () => countOpen(blocker) === 1);
    const looks = [look(shared), prober.batch().look(shared, { parts: OVERVIEW_PARTS }), look(shared)];
    await settle();
    await clock.advance(FIRST_MS);
    const outcomes = await Promise.all(looks);
    expect(outcomes[0]).toBe(outcomes[1]);
    expect(outcomes[0]?.learnt).toMatchObject({ permissions: [] });
    expect(healths(shared)).toBe(1);
  });

  test('do not join a running look that asks for fewer parts', async () => {
    const shared = await target('a');
    shared.fake.override('GET /path', { kind: 'hang' }, 1);
    const { clock, look } = rig(2);
    void look(shared);
    await until('the plain look', () => shared.fake.count('GET /path') === 1);
    expect((await look(shared, { parts: ['permissions'] }))?.learnt).toEqual({ permissions: [] });
    await clock.advance(FIRST_MS);
  });

  test('drop waiting looks that no other batch wants when they end', async () => {
    const blocker = await target('blocker', { hangs: true });
    const [mine, shared] = [await target('mine'), await target('shared')];
    const { prober, clock, batch, look } = rig(1);
    const looks = [blocker, mine, shared].map((one) => look(one));
    const kept = prober.batch().look(shared, PLAIN);
    await until('the slot to be taken', () => countOpen(blocker) === 1);
    batch.end();
    expect(await Promise.all(looks)).toEqual([undefined, undefined, undefined]);
    await clock.advance(FIRST_MS);
    expect(status(await kept)).toBe('healthy');
    await settle();
    expect(healths(mine)).toBe(0);
    expect(await look(shared)).toBeUndefined();
  });

  test('drop waiting second looks when they end', async () => {
    const hung = await targets(3, { hangs: true });
    const { prober, clock, batch, look } = rig(4);
    for (const one of hung) void look(one);
    await until('all requests', () => prober.counters.inFlight === 3);
    await clock.advance(FIRST_MS);
    await until('one second look', () => prober.counters.probes === 4);
    batch.end();
    await clock.advance(10 * DEADLINE_MS);
    expect(prober.counters).toMatchObject({ probes: 4, inFlight: 0 });
  });
});

test('closing ends all requests and waits, and there are no outcomes afterwards', async () => {
  const partly = await target('partly');
  partly.fake.override('GET /experimental/session', { kind: 'hang' });
  const all = [partly, ...(await targets(2, { hangs: true })), await target('locked')];
  const { prober, clock, outcomes, look } = rig(2, {
    resolveCredential: ({ key }) => (key === 'locked' ? new Promise(() => {}) : Promise.resolve(undefined)),
  });
  const looks = all.map((one) => look(one, { parts: ['session'] }));
  await until(
    'the slots to be taken',
    () => countOpen(...all) === 2 && partly.fake.count('GET /experimental/session') === 1,
  );
  prober.close();
  prober.close();
  expect(await Promise.all(looks)).toEqual(all.map(() => undefined));
  await until('the requests to end', () => countOpen(...all) === 0);
  expect(outcomes).toEqual([]);
  expect(clock.due()).toBe(0);
  expect(await prober.batch().look(partly, PLAIN)).toBeUndefined();
});
