import { describe, expect, test } from 'vitest';

import type { EndpointRecord } from '../../src/fleet/endpoint-record.ts';
import { EndpointTable } from '../../src/fleet/endpoint-table.ts';
import { askOverviews } from '../../src/fleet/survey.ts';
import { startFakes } from '../rig/fake/fakes.ts';
import { until } from '../rig/wait.ts';
import { candidate } from './candidates.ts';
import { ManualClock, settle } from './manual-clock.ts';
import { DEADLINE_MS, World } from './world.ts';

describe('a survey', () => {
  test('asks every listed instance for its whole overview', async () => {
    await using world = new World();
    const [fake, other] = await Promise.all([world.fake({ directory: '/home/user/a' }), world.fake()]);
    world.register('a', fake);
    world.register('b', other);
    await world.start();
    const session = fake.addSession({ title: 'Fix the build' });
    fake.addPermission({ sessionID: session.id });
    fake.addQuestion({ sessionID: session.id });
    fake.state.statuses.set(session.id, { type: 'retry', attempt: 2, message: 'Overloaded', next: 0 });
    await world.clock.advance(5000);
    const { instances } = await world.fleet.survey();
    expect(instances).toMatchObject([
      {
        name: 'a',
        state: 'waiting',
        reason: 'for permission: «bash "ls"» (and 1 more)',
        overview: {
          activity: { kind: 'retrying', attempt: 2, message: 'Overloaded' },
          session: { id: session.id, title: 'Fix the build', directory: '/home/user/a' },
          waiting: [
            { kind: 'permission', sessionId: session.id, text: 'bash "ls"' },
            { kind: 'question', sessionId: session.id, text: 'Go on? Yes | No' },
          ],
          askedAtMs: world.clock.now(),
        },
      },
      { name: 'b', state: 'idle', overview: { waiting: [], askedAtMs: world.clock.now() } },
    ]);
    expect(instances[0]?.overview).not.toHaveProperty('stale');
  });

  test('asks offline instances too, so a recovered one shows immediately', async () => {
    await using world = new World();
    const proxy = await world.tunnelTo(await world.fake());
    world.register('a', proxy);
    await world.start();
    await proxy.down();
    await world.fleet.survey();
    expect(world.listed()).toEqual(['a offline']);
    await proxy.up();
    await world.fleet.survey();
    expect(world.listed()).toEqual(['a idle']);
  });

  test('joins a survey in progress', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    const before = fake.count('GET /session/status');
    const [one, other] = await Promise.all([world.fleet.survey(), world.fleet.survey()]);
    expect(one).toBe(other);
    expect(fake.count('GET /session/status')).toBe(before + 1);
    await world.fleet.survey();
    expect(fake.count('GET /session/status')).toBe(before + 2);
  });

  test('does not repeat the requests of another survey that has just asked', async () => {
    await using world = new World();
    const [fake, hung] = await Promise.all([world.fake(), world.fake()]);
    world.register('a', fake);
    world.register('b', hung);
    await world.start();
    hung.override('GET /path', { kind: 'hang' });
    await world.clock.advance(1000);
    const first = world.fleet.survey();
    const askedMs = world.clock.now();
    await until('the answer of instance a', () => world.instance('a').overview?.askedAtMs === askedMs);
    const before = fake.count('GET /session/status');
    const second = world.fleet.survey();
    await settle();
    await world.clock.advance(DEADLINE_MS);
    await Promise.all([first, second]);
    expect(fake.count('GET /session/status')).toBe(before);
  });

  test('uses the version from the last round; a refresh requests it', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    const healthRequests = (): number => fake.count('GET /global/health');
    expect(healthRequests()).toBe(1);
    await world.fleet.survey();
    expect(healthRequests()).toBe(1);
    await world.fleet.refresh();
    expect(healthRequests()).toBe(2);
    await world.round();
    expect(healthRequests()).toBe(3);
  });

  test('waits for the first round and does not repeat its requests', async () => {
    await using world = new World();
    const fake = await world.fake();
    world.register('a', fake);
    world.fleet.start();
    const { instances } = await world.fleet.survey();
    expect(instances).toMatchObject([{ name: 'a', state: 'idle' }]);
    expect(fake.count('GET /session/status')).toBe(1);
  });

  test('repeats a request that timed out in the first round', async () => {
    await using world = new World();
    const fake = await world.fake();
    world.register('a', fake);
    fake.override('GET /session/status', { kind: 'hang' }, 1);
    world.fleet.start();
    const surveying = world.fleet.survey();
    await until('the status request', () => fake.count('GET /session/status') === 1);
    await world.clock.advance(DEADLINE_MS / 4);
    const { instances } = await surveying;
    expect(instances).toMatchObject([{ name: 'a', state: 'idle' }]);
    expect(instances[0]?.overview).not.toHaveProperty('stale');
  });

  test('waits for the first probe of a new registration', async () => {
    await using world = new World();
    const [fake, late] = await Promise.all([world.fake(), world.fake()]);
    world.register('a', fake);
    await world.start();
    late.override('GET /global/health', { kind: 'hang' }, 1);
    world.register('b', late);
    await world.announce();
    const surveying = world.fleet.survey();
    await until('the request to the old instance', () => fake.count('GET /session/status') === 2);
    await until('the request to the new instance', () => late.count('GET /global/health') === 1);
    await world.clock.advance(DEADLINE_MS / 4);
    expect((await surveying).instances).toMatchObject([{ name: 'a' }, { name: 'b', state: 'idle' }]);
  });

  test('leaves no queued probe behind', async () => {
    await using world = new World({ slots: 1 });
    const list = await Promise.all([world.fake(), world.fake(), world.fake()]);
    for (const [index, fake] of list.entries()) world.register(`i${index}`, fake, { claims: { localPort: index } });
    await world.start();
    for (const fake of list) fake.override('GET /path', { kind: 'hang' });
    const before = world.fleet.counters.probes;
    const surveying = world.fleet.survey();
    await until('the slot to be taken', () => world.fleet.counters.inFlight === 1);
    await world.clock.advance(DEADLINE_MS);
    await surveying;
    await world.clock.advance(4 * DEADLINE_MS);
    // Three short probes fit into the deadline; a second probe of the first instance had begun.
    expect([world.fleet.counters.probes - before, world.fleet.counters.inFlight]).toEqual([4, 0]);
  });

  test('returns the last known state to a caller that aborts, and continues for the others', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    fake.override('GET /session/status', { kind: 'hang' });
    const controller = new AbortController();
    const abandoned = world.fleet.survey(controller.signal);
    let done = false;
    const waiting = world.fleet.survey().then(() => (done = true));
    controller.abort();
    expect((await abandoned).instances).toMatchObject([{ name: 'a', state: 'idle' }]);
    await settle();
    expect(done).toBe(false);
    await world.clock.advance(DEADLINE_MS);
    await waiting;
  });

  test('shows an instance as unknown, not idle, if its status was never read', async () => {
    await using world = new World();
    const fake = await world.fake();
    fake.override('GET /session/status', { kind: 'html' });
    world.register('a', fake);
    await world.start();
    expect((await world.fleet.survey()).instances).toMatchObject([
      { state: 'unknown', overview: { activity: { kind: 'unknown' }, stale: ['status'] } },
    ]);
  });

  test('asks through the next endpoint within the same call if the best one fails or is silent', async () => {
    await using world = new World();
    const { fake, proxy: tunnel } = await world.startWithTwoEndpoints();
    expect(world.instance('a').server.endpoints.map(({ candidate }) => candidate.key)).toEqual(['a', 'r']);
    fake.state.statuses.set('ses_1', { type: 'busy' });
    tunnel.rule({}, { kind: 'hang' });
    const surveying = world.fleet.survey();
    await tunnel.waitForRequest({ path: '/path' }, { nth: 2 });
    await world.clock.advance(DEADLINE_MS * 0.3);
    await until('an answer through the other endpoint', () => world.listed()[0] === 'a busy');
    await world.clock.advance(DEADLINE_MS);
    await surveying;
    expect(world.instance('a').server.endpoints.map(({ candidate }) => candidate.key)).toEqual(['r', 'a']);
    tunnel.pass();
    await tunnel.down();
    fake.state.statuses.clear();
    expect((await world.fleet.survey()).instances).toMatchObject([{ name: 'a', state: 'idle' }]);
  });
});

test('one hanging instance delays none of forty others, and the survey ends at its deadline', async () => {
  const count = 40;
  const slots = 8;
  await using fakes = await startFakes(count + 1);
  await using world = new World({ slots });
  for (const [index, fake] of fakes.all.entries()) world.register(`i${index}`, fake, { claims: { localPort: index } });
  await world.start();
  expect(world.listed()).toHaveLength(count + 1);
  const hung = fakes.all[0];
  hung?.override('GET /path', { kind: 'hang' });
  await world.clock.advance(1000);
  const nowMs = world.clock.now();
  let ended = false;
  const surveying = world.fleet.survey().then((snapshot) => {
    ended = true;
    return snapshot;
  });
  const fresh = (): number =>
    world.fleet.snapshot().instances.filter(({ overview }) => overview?.askedAtMs === nowMs).length;
  // The clock does not advance meanwhile.
  await until('the answers of all others', () => fresh() === count);
  expect([ended, world.clock.now(), hung?.load.current]).toEqual([false, nowMs, 1]);
  await world.clock.advance(DEADLINE_MS);
  const { instances } = await surveying;
  expect(instances.filter(({ state }) => state === 'idle')).toHaveLength(count);
  expect(instances.find(({ name }) => name === 'i0')).toMatchObject({
    state: 'offline',
    reason: expect.stringContaining('gave no answer'),
    overview: { askedAtMs: nowMs - 1000 },
  });
  expect(world.fleet.counters.maxInFlight).toBeLessThanOrEqual(slots);
});

test('the instances asked longest ago go first, so each gets a turn even if time runs out', async () => {
  const table = new EndpointTable();
  const { added } = table.apply(
    'test',
    ['a', 'b', 'c'].map((key) => candidate({ key, url: `http://127.0.0.1/${key}` })),
  );
  const askedKeys: string[] = [];
  for (const [index, record] of added.entries()) record.probedAtMs = [2000, 1000, 3000][index] ?? 0;
  const servers = added.map((record) => [record]);
  const batch = { look: async (record: EndpointRecord) => void askedKeys.push(record.candidate.key), end: () => {} };
  await askOverviews(
    { servers, due: new Set(servers), batch, trustsVersion: true, trustsReports: true },
    { table, clock: new ManualClock(), deadlineMs: 1000 },
  );
  expect(askedKeys).toEqual(['b', 'a', 'c']);
});

describe('a refresh', () => {
  test('scans, and asks new instances without waiting for a hint or poll', async () => {
    await using world = new World();
    await world.start();
    world.register('a', await world.fake());
    expect((await world.fleet.refresh()).instances).toMatchObject([{ name: 'a', state: 'idle' }]);
  });

  test('asks unlisted endpoints too', async () => {
    await using world = new World();
    const proxy = await world.tunnelTo(await world.fake());
    world.register('a', proxy);
    await world.start();
    await proxy.down();
    for (let missed = 0; missed < 5; missed += 1) await world.round();
    expect(world.listed()).toEqual([]);
    await proxy.up();
    await world.fleet.survey();
    expect(world.listed()).toEqual([]);
    expect((await world.fleet.refresh()).instances).toMatchObject([{ name: 'a', state: 'idle' }]);
  });

  test('ends at its deadline if a source hangs, after asking all known instances', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    world.source.answer = () => new Promise(() => {});
    fake.state.statuses.set('ses_1', { type: 'busy' });
    const refreshing = world.fleet.refresh();
    await until('the request to the instance', () => world.listed()[0] === 'a busy');
    await world.clock.advance(DEADLINE_MS);
    expect((await refreshing).instances).toMatchObject([{ name: 'a', state: 'busy' }]);
  });
});
