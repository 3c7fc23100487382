import { afterAll, expect, test } from 'vitest';

import type { Fleet } from '../../src/fleet/fleet.ts';
import { FleetFeed } from '../../src/page/fleet/fleet-feed.ts';
import { streamFleet } from '../../src/page/fleet/fleet-stream.ts';
import { LazyRuntime, KEPT_MS } from '../../src/page/lazy-runtime.ts';
import { HEARTBEAT_MS } from '../../src/page/line-stream.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { OWN_LAPTOP, READER } from '../node/stage.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { FAKE_ROUTES } from '../rig/fake/fake-http.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { streamSlowly } from './slow-response.ts';
import { openPageStage, sessionsIn } from './stage.ts';

const FLEET = 'v1/fleet';

const stage = await openPageStage();
afterAll(() => stage[Symbol.asyncDispose]());

test('an instance that hangs does not hold back the others’ changes', async () => {
  await using stage = await openPageStage();
  await using hung = await startFakeOpencode({ password: 'pa55word', directory: '/home/user/hung' });
  await stage.registry.add(
    { name: 'hung', port: hung.port, cwd: hung.directory, id: 'inst_hung' },
    { password: 'pa55word' },
  );
  await using lines = await stage.stream(FLEET);
  await lines.find('both', (line) => (line['instances'] as readonly unknown[]).length === 2);
  for (const route of FAKE_ROUTES) hung.override(route, { kind: 'hang' });
  await until('a request to the hung instance', () => hung.load.current > 0);
  const hungMs = Date.now();
  await until('a later survey of the other instance', () =>
    stage.instances.fleet.snapshot().instances.some(({ overview }) => (overview?.askedAtMs ?? 0) >= hungMs),
  );
  const session = stage.fake.addSession({ title: 'Meanwhile' });
  const { at } = await lines.find('the new session', (line) => sessionsIn(line).some(({ id }) => id === session.id));
  // The survey of the hung instance may take the whole health deadline, which has not passed yet.
  expect(lines.all.at(-1)).toMatchObject({ at, instances: [{ name: 'hung', state: 'idle' }, { name: 'one' }] });
});

test('the list does not wait for the first round, is read only after changes, and reaches a slow reader in its newest state', async () => {
  const first = stage.instances.fleet.snapshot();
  const clock = new ManualClock();
  const changes: (() => void)[] = [];
  let snapshot = first;
  let reads = 0;
  const scripted = {
    ready: () => new Promise<void>(() => {}),
    survey: () => Promise.resolve(first),
    changed: (signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        changes.push(resolve);
        signal.addEventListener('abort', () => resolve());
      }),
    snapshot: () => {
      reads += 1;
      return snapshot;
    },
  } as unknown as Fleet;
  const runtime = { ...testRuntime(scripted), clock };
  await using reader = streamSlowly(clock, (lines, signal) => {
    const deps = { feed: new FleetFeed(runtime), clock, signal };
    return streamFleet(lines, deps, { name: 'ada', role: 'drive' }, { runtime, all: true });
  });
  await clock.advance(1_000);
  expect([reader.written.length, reads]).toEqual([1, 1]);
  expect(reader.written[0]).toContain('"name":"one"');
  for (const host of ['earlier', 'newest']) {
    snapshot = { ...first, instances: first.instances.map((one) => ({ ...one, host })) };
    for (const change of changes.splice(0)) change();
    await settle();
  }
  // The reader has not taken the first line yet.
  expect(reads).toBe(1);
  reader.drain();
  await clock.advance(1_000);
  expect([reader.written.length, reads]).toEqual([2, 2]);
  expect(reader.written[1]).toContain('"host":"newest"');
  reader.drain();
  await clock.advance(600_000);
  expect(reads).toBe(2);
});

test('a stream sends a heartbeat every 15 s, but not to a slow reader', async () => {
  const clock = new ManualClock();
  await using reader = streamSlowly(clock, async (lines) => {
    await clock.sleep(HEARTBEAT_MS + 1);
    await lines.send([{ at: 1 }]);
  });
  await clock.advance(HEARTBEAT_MS);
  expect(reader.written).toEqual(['\n']);
  await clock.advance(HEARTBEAT_MS);
  expect(reader.written).toEqual(['\n', '{"at":1}\n']);
});

test('the node’s user sees all machines, and their fleet starts with the first page', async () => {
  const directory = '/home/user/elsewhere';
  await using elsewhere = await openPageStage({ fake: { directory } });
  let started = 0;
  let closed = 0;
  await using stage = await openPageStage({
    startAll: () => {
      started += 1;
      const close = (): Promise<void> => Promise.resolve(void (closed += 1));
      return Promise.resolve({ runtime: testRuntime(elsewhere.instances.fleet), close });
    },
  });
  expect(started).toBe(0);
  for (let page = 0; page < 2; page += 1) {
    await using own = await stage.stream(FLEET, { from: OWN_LAPTOP });
    expect(await own.find('the state', () => true)).toMatchObject({ you: { all: true }, instances: [{ directory }] });
  }
  // A colleague with a grant to drive sees only this machine.
  await using others = await stage.stream(FLEET);
  expect(await others.find('the state', () => true)).toMatchObject({
    you: { all: false },
    instances: [{ directory: stage.fake.directory }],
  });
  expect([started, closed]).toEqual([1, 0]);
});

test('the fleet of all machines ends some minutes after the last page closes', async () => {
  const clock = new ManualClock();
  let closed = 0;
  const close = (): Promise<void> => Promise.resolve(void (closed += 1));
  const lazy = new LazyRuntime(() => Promise.resolve({ runtime: {} as never, close }), clock);
  const [one, other] = [await lazy.use(), await lazy.use()];
  one.release();
  one.release();
  await clock.advance(2 * KEPT_MS);
  expect(closed).toBe(0);
  other.release();
  await clock.advance(KEPT_MS - 1);
  const third = await lazy.use();
  await clock.advance(KEPT_MS);
  expect(closed).toBe(0);
  third.release();
  await clock.advance(KEPT_MS);
  expect(closed).toBe(1);
});

test('if the fleet of all machines cannot start, each request gets an error and frees its stream', async () => {
  for (let number = 1; number <= 13; number += 1)
    expect(await stage.call('/opencode-mcp/page/v1/fleet', { from: OWN_LAPTOP })).toMatchObject({
      status: 500,
      json: { error: expect.stringContaining('log') },
    });
  expect(stage.log.some(({ message }) => message.includes('no other machines here'))).toBe(true);
});

test('streams are limited per caller', async () => {
  const lines = await Promise.all(Array.from({ length: 12 }, () => stage.stream(FLEET)));
  const refused = await stage.call('/opencode-mcp/page/v1/fleet');
  expect(refused).toMatchObject({ status: 429, json: { error: expect.stringContaining('Close some') } });
  await using others = await stage.stream(FLEET, { from: READER });
  await others.find('the state', () => true);
  await lines[0]?.[Symbol.asyncDispose]();
  await until('a free stream', async () => {
    await using again = await stage.stream(FLEET);
    return again.response.statusCode === 200;
  });
  await Promise.all(lines.map((one) => one[Symbol.asyncDispose]()));
});
