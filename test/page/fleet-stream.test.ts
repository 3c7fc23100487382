import type { ServerResponse } from 'node:http';

import { expect, test } from 'vitest';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import { FleetFeed } from '../../src/page/fleet/fleet-feed.ts';
import { streamFleet } from '../../src/page/fleet/fleet-stream.ts';
import { LazyRuntime, KEPT_MS } from '../../src/page/lazy-runtime.ts';
import { HEARTBEAT_MS, LineStream } from '../../src/page/line-stream.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { OWN_LAPTOP } from '../node/stage.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { FAKE_ROUTES } from '../rig/fake-http.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { SlowResponse } from './slow-response.ts';
import { type Line, openPageStage } from './stage.ts';

/** Streams a fleet to a reader that takes nothing until `drain`. */
function streamBlocked(runtime: Runtime, clock: Clock = systemClock) {
  const response = new SlowResponse();
  const ending = new AbortController();
  const { signal } = ending;
  const stream = new LineStream(response as unknown as ServerResponse, clock, signal);
  const deps = { feed: new FleetFeed(runtime), clock, signal };
  const streaming = streamFleet(stream, deps, { name: 'ada', role: 'drive' }, { runtime, all: true });
  return {
    response,
    async [Symbol.asyncDispose]() {
      ending.abort();
      await streaming;
    },
  };
}

function sessionsIn(line: Line): readonly Line[] {
  return (line['sessions'] ?? []) as readonly Line[];
}

test('an instance that hangs does not hold back the others’ changes', async () => {
  await using stage = await openPageStage();
  await using hung = await startFakeOpencode({ password: 'pa55word', directory: '/home/user/hung' });
  await stage.registry.add(
    { name: 'hung', port: hung.port, cwd: hung.directory, id: 'inst_hung' },
    { password: 'pa55word' },
  );
  await using lines = await stage.stream('v1/fleet');
  await lines.find('both', (line) => (line['instances'] as readonly unknown[]).length === 2);
  for (const route of FAKE_ROUTES) hung.override(route, { kind: 'hang' });
  await until('the one that hangs to be asked', () => hung.load.current > 0);
  const hungMs = Date.now();
  await until('the other to be asked after that', () =>
    stage.instances.fleet.snapshot().instances.some(({ overview }) => (overview?.askedAtMs ?? 0) >= hungMs),
  );
  const session = stage.fake.addSession({ title: 'Meanwhile' });
  const { at } = await lines.find('the new session', (line) => sessionsIn(line).some(({ id }) => id === session.id));
  // Its survey may take the whole health deadline, which is not over.
  expect(lines.all.at(-1)).toMatchObject({ at, instances: [{ name: 'hung', state: 'idle' }, { name: 'one' }] });
});

test('a blocked reader gets only the newest state in the end', async () => {
  await using stage = await openPageStage();
  await using blocked = streamBlocked(testRuntime(stage.instances.fleet));
  const { response } = blocked;
  await until('the first line', () => response.written.length === 1);
  for (const title of ['Earlier', 'Newest']) {
    const now = Date.now();
    stage.fake.addSession({ title, time: { created: now, updated: now } });
    await until('it to be known', () =>
      stage.instances.fleet.snapshot().instances.some(({ overview }) => overview?.session?.title === title),
    );
  }
  expect(response.written).toHaveLength(1);
  response.drain();
  await until('the next line', () => response.written.length === 2);
  expect(response.written[1]).toContain('Newest');
});

test('an open page reads the fleet only when something changed, and misses no change while a line is on its way', async () => {
  await using stage = await openPageStage();
  const first = stage.instances.fleet.snapshot();
  const clock = new ManualClock();
  const changes: (() => void)[] = [];
  let snapshot = first;
  let reads = 0;
  const fleet = {
    ready: () => Promise.resolve(),
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
  await using blocked = streamBlocked({ ...testRuntime(fleet), clock }, clock);
  const { response } = blocked;
  await settle();
  expect([response.written.length, reads]).toEqual([1, 1]);
  snapshot = { ...first, instances: [] };
  for (const change of changes.splice(0)) change();
  await settle();
  // The reader has not taken the first line yet.
  expect(reads).toBe(1);
  response.drain();
  await clock.advance(1000);
  expect([response.written.length, reads]).toEqual([2, 2]);
  expect(response.written[1]).toContain('"instances":[]');
  response.drain();
  await clock.advance(600_000);
  expect(reads).toBe(2);
});

test('the first line does not wait for the whole first round', async () => {
  await using stage = await openPageStage();
  const { fleet } = stage.instances;
  const begun = {
    ready: () => new Promise<void>(() => {}),
    snapshot: () => fleet.snapshot(),
    survey: (signal?: AbortSignal) => fleet.survey(signal),
    changed: (signal: AbortSignal) => fleet.changed(signal),
  } as unknown as Fleet;
  await using blocked = streamBlocked(testRuntime(begun));
  const { response } = blocked;
  await until('the first line', () => response.written.length === 1);
  expect(response.written[0]).toContain('"name":"one"');
});

test('a stream sends a heartbeat every 15 s, but not to a blocked reader', async () => {
  const clock = new ManualClock();
  const response = new SlowResponse();
  const ending = new AbortController();
  const stream = new LineStream(response as unknown as ServerResponse, clock, ending.signal);
  await clock.advance(HEARTBEAT_MS);
  expect(response.written).toEqual(['\n']);
  void stream.send([{ at: 1 }]);
  await clock.advance(HEARTBEAT_MS);
  expect(response.written).toEqual(['\n', '{"at":1}\n']);
  ending.abort();
});

test('the user of the node sees all machines; their fleet runs while a page is open', async () => {
  await using elsewhere = await startFakeOpencode({ directory: '/home/user/elsewhere' });
  await using other = await openPageStage({ fake: { directory: elsewhere.directory } });
  let started = 0;
  let closed = 0;
  await using stage = await openPageStage({
    startAll: () => {
      started += 1;
      const close = (): Promise<void> => Promise.resolve(void (closed += 1));
      return Promise.resolve({ runtime: testRuntime(other.instances.fleet), close });
    },
  });
  expect(started).toBe(0);
  await using lines = await stage.stream('v1/fleet', { from: OWN_LAPTOP });
  const first = await lines.find('the state', () => true);
  expect(first).toMatchObject({ you: { all: true }, instances: [{ directory: elsewhere.directory }] });
  await using again = await stage.stream('v1/fleet', { from: OWN_LAPTOP });
  await again.find('the state', () => true);
  // A colleague may drive too, but sees only this machine.
  await using theirs = await stage.stream('v1/fleet');
  expect(await theirs.find('the state', () => true)).toMatchObject({
    you: { all: false },
    instances: [{ directory: stage.fake.directory }],
  });
  expect([started, closed]).toEqual([1, 0]);
});

test('the fleet of all machines ends some minutes after the last page closes', async () => {
  const clock = new ManualClock();
  let closed = 0;
  const lazy = new LazyRuntime(
    () => Promise.resolve({ runtime: {} as never, close: () => Promise.resolve(void (closed += 1)) }),
    clock,
  );
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

test('if the fleet of all machines cannot start, each request says so and frees its stream', async () => {
  await using stage = await openPageStage();
  for (let number = 1; number <= 13; number += 1)
    expect(await stage.call('/opencode-mcp/page/v1/fleet', { from: OWN_LAPTOP })).toMatchObject({
      status: 500,
      json: { error: expect.stringContaining('log') as string },
    });
  expect(stage.log.some(({ message }) => message.includes('no other machines here'))).toBe(true);
});

test('streams are limited per caller', async () => {
  await using stage = await openPageStage();
  const lines = await Promise.all(Array.from({ length: 12 }, () => stage.stream('v1/fleet')));
  const more = await stage.call('/opencode-mcp/page/v1/fleet');
  expect(more).toMatchObject({ status: 429, json: { error: expect.stringContaining('Close some') as string } });
  await using theirs = await stage.stream('v1/fleet', { from: '127.0.0.4' });
  await theirs.find('the state', () => true);
  await lines[0]?.[Symbol.asyncDispose]();
  await until('a place', async () => {
    await using again = await stage.stream('v1/fleet');
    return again.response.statusCode === 200;
  });
  await Promise.all(lines.map((one) => one[Symbol.asyncDispose]()));
});
