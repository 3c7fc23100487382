import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { silentLogger } from '../../src/base/log.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { newId } from '../rig/fake-objects.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { until } from '../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from './world.ts';

const DIRECTORY = '/home/user/project';
const MINUTE_MS = 60_000;

let fake: FakeOpencode;
let world: WatchWorld;

beforeEach(async () => {
  fake = await startFakeOpencode({ directory: DIRECTORY });
  world = await openWatchWorld();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  await fake.close();
});

async function follow(): Promise<void> {
  await world.register('one', fake);
  await world.followed('one');
  // A second survey comes when the server has surely subscribed.
  await until('the second look', () => fake.count('GET /session/status') >= 3);
}

function begin(): string {
  const { id } = fake.addSession();
  fake.state.begin(id, 'Go');
  return id;
}

describe('the stream', () => {
  test('is one per server, for all of its directories', async () => {
    await follow();
    expect([fake.openStreams, fake.count('GET /global/event'), fake.count('GET /event')]).toEqual([1, 1, 0]);
  });

  test.each(['end', 'destroy'] as const)(
    'is opened again after its %s, and what it did not tell is seen',
    async (how) => {
      await follow();
      const kept = begin();
      await world.becomes(kept, 'busy');
      fake.override('GET /global/event', { kind: 'answer', status: 503 });
      fake.endStreams(how);
      await until('it to be known', () => world.server('one')?.checkedMs === undefined);
      // The known state is still there.
      expect(world.session(kept)?.state).toBe('busy');
      fake.state.finish(kept, 'Done');
      const missed = begin();
      fake.override('GET /global/event', undefined);
      await world.becomes(kept, 'idle');
      await world.becomes(missed, 'busy');
      await world.followed('one');
      expect(fake.openStreams).toBe(1);
    },
  );

  test("does not decide: a server's answer counts without an event", async () => {
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    fake.emit('session.idle', { sessionID: id });
    fake.emit('permission.asked', { id: newId('per'), sessionID: id });
    const asked = fake.count('GET /session/status');
    await until('it to be asked', () => fake.count('GET /session/status') > asked);
    await until('the answer to be taken', () => fake.load.current === 0);
    expect(world.session(id)).toMatchObject({ state: 'busy', waiting: [] });
  });
});

describe('events', () => {
  test('of a streaming turn cost no request', async () => {
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    const asked = fake.count('GET /session/status');
    for (let word = 0; word < 500; word += 1) fake.state.say(id, `word ${word} `);
    const last = fake.addPermission({ sessionID: id });
    const waiting = await world.becomes(id, 'waiting');
    expect(waiting.waiting.map((one) => one.id)).toEqual([last.id]);
    // For the request alone, and for a late consequence of the first survey.
    expect(fake.count('GET /session/status') - asked).toBeLessThanOrEqual(2);
  });

  test('of a running session are dated, until it ends', async () => {
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    const seenMs = world.server('one')?.lastEvents.get(id) ?? 0;
    expect(seenMs).toBeGreaterThan(0);
    fake.emit('message.part.delta', { sessionID: id, messageID: newId('msg'), partID: newId('prt'), delta: 'word' });
    await until('the event to be dated', () => (world.server('one')?.lastEvents.get(id) ?? 0) > seenMs);
    fake.state.finish(id, 'Done');
    await world.becomes(id, 'idle');
    expect(world.server('one')?.lastEvents.has(id)).toBe(false);
  });

  test('in a flood cost a few requests, and the last event counts', async () => {
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    const asked = fake.count('GET /session/status');
    for (let times = 0; times < 250; times += 1) {
      const { id: request } = fake.addPermission({ sessionID: id });
      fake.state.settle(request, 'permission.replied', { reply: 'once' });
    }
    const last = fake.addPermission({ sessionID: id, metadata: { command: 'the last' } });
    await until('the last to be seen', () => world.session(id)?.waiting.some((one) => one.id === last.id));
    expect(fake.count('GET /session/status') - asked).toBeLessThanOrEqual(6);
  });
});

describe('a server that answers slowly', () => {
  test('keeps its last state, and the others show theirs', async () => {
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    await world.register('two', other);
    await world.followed('two');
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    fake.override('GET /session/status', { kind: 'hang' });
    const asked = fake.count('GET /session/status');
    fake.addPermission({ sessionID: id });
    await until('it to be asked', () => fake.count('GET /session/status') > asked);
    const { id: quick } = other.addSession();
    other.state.begin(quick, 'Go');
    await world.becomes(quick, 'busy');
    expect(world.session(id)).toMatchObject({ state: 'busy', waiting: [] });
  });

  test('is not taken for an idle one', async () => {
    await world[Symbol.asyncDispose]();
    world = await openWatchWorld({ healthCheckTimeoutMs: 300 });
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    const asked = fake.count('GET /session/status');
    fake.override('GET /session/status', { kind: 'hang' });
    fake.state.finish(id, 'Done');
    await until('it to be asked in vain', () => fake.count('GET /session/status') >= asked + 4);
    expect(world.session(id)?.state).toBe('busy');
    fake.override('GET /session/status', undefined);
    await world.becomes(id, 'idle');
  });

  test('is asked again until it answers', async () => {
    await world[Symbol.asyncDispose]();
    world = await openWatchWorld({ healthCheckTimeoutMs: 500 });
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    fake.override('GET /permission', { kind: 'hang' }, 3);
    fake.addPermission({ sessionID: id });
    await world.becomes(id, 'waiting');
  });
});

describe('a server in which nothing runs', () => {
  test('is asked once a minute what runs, and nothing else', async () => {
    await follow();
    const clock = new ManualClock();
    await using watched = await followWith(clock);
    await until('a second look', async () => {
      await clock.advance(1000);
      return fake.load.current === 0 && fake.count('GET /session/status') >= 6;
    });
    const before = counts();
    const checkedMs = watched.watcher.servers()[0]?.checkedMs ?? 0;
    await clock.advance(MINUTE_MS);
    await until('it to be asked', () => (watched.watcher.servers()[0]?.checkedMs ?? 0) > checkedMs);
    const after = counts();
    expect({ ...after, status: after.status - before.status }).toEqual({ ...before, status: expect.any(Number) });
    expect(after.status - before.status).toBeLessThanOrEqual(2);
  });

  test('is surveyed if it began to work without an event', async () => {
    await follow();
    const clock = new ManualClock();
    await using watched = await followWith(clock);
    const { id } = fake.addSession();
    await until('the session to be listed', async () => {
      await clock.advance(1000);
      return watched.watcher.servers()[0]?.instances[0]?.overview?.session?.id === id;
    });
    // As if its event was lost.
    fake.state.statuses.set(id, { type: 'busy' });
    await until('it to be seen', async () => {
      await clock.advance(5000);
      return watched.watcher.servers()[0]?.sessions.some((one) => one.id === id && one.state === 'busy');
    });
  });

  const counts = () => ({
    status: fake.count('GET /session/status'),
    health: fake.count('GET /global/health'),
    path: fake.count('GET /path'),
    sessions: fake.count('GET /experimental/session'),
    messages: fake.count('GET /session/:id/message'),
    streams: fake.count('GET /global/event'),
  });

  /** A second watcher of the same servers, on a manual clock. */
  async function followWith(clock: ManualClock): Promise<AsyncDisposable & { readonly watcher: LiveWatcher }> {
    const watcher = new LiveWatcher({ own: world.instances, clock, logger: silentLogger });
    watcher.start();
    await until('it to follow', () => watcher.servers()[0]?.checkedMs !== undefined);
    return { watcher, [Symbol.asyncDispose]: () => watcher.close() };
  }
});

describe('a server that ends', () => {
  test('is gone with its registration; what ran in it is interrupted', async () => {
    await follow();
    const [id, done] = [begin(), begin()];
    fake.state.finish(done, 'Done');
    await world.becomes(id, 'busy');
    await fake.close();
    await world.registry.remove('one');
    expect(await world.becomes(id, 'interrupted')).toMatchObject({ reason: 'its server ended while it ran' });
    expect(world.server('one')).toMatchObject({ checkedMs: undefined, sessions: [{ id }] });
  });

  test('is gone without an event if it was killed, since nobody holds its port', async () => {
    let isOurs = true;
    await world[Symbol.asyncDispose]();
    world = await openWatchWorld({ ports: { ours: (claims) => Promise.resolve(isOurs ? claims : []) } });
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    isOurs = false;
    fake.endStreams('destroy');
    await world.becomes(id, 'interrupted');
  });

  test('and restarts tells how its sessions ended', async () => {
    await follow();
    const id = begin();
    await world.becomes(id, 'busy');
    await fake.close();
    await world.registry.remove('one');
    await world.becomes(id, 'interrupted');
    await using again = await startFakeOpencode({ directory: DIRECTORY });
    again.addSession({ id, title: 'From the store' });
    again.state.messages.set(id, fake.state.messages.get(id) ?? []);
    await world.register('two', again);
    await world.followed('two');
    await until('the old one to be left out', () => world.server('one') === undefined);
    expect(world.session(id)).toMatchObject({ title: 'From the store', state: 'interrupted' });
  });

  test('is not kept if nothing ran in it', async () => {
    await follow();
    await fake.close();
    await world.registry.remove('one');
    await until('it to be gone', () => world.server('one') === undefined);
  });
});

test('close ends every stream and notification, and may be repeated', async () => {
  await follow();
  await world.watcher.close();
  await until('the stream to end', () => fake.openStreams === 0);
  const { changes } = world;
  begin();
  await world.watcher.close();
  expect(world.changes).toBe(changes);
});

test('a listener is called for each change until it unsubscribes', async () => {
  await follow();
  let heard = 0;
  const leave = world.watcher.onChange(() => (heard += 1));
  const id = begin();
  await world.becomes(id, 'busy');
  await until('it to be told', () => heard > 0);
  leave();
  const before = heard;
  fake.state.finish(id, 'Done');
  await world.becomes(id, 'idle');
  expect(heard).toBe(before);
});

test("the fleet's rounds skip a followed server, and probe it while its stream is down", async () => {
  await world[Symbol.asyncDispose]();
  world = await openWatchWorld({ discoveryIntervalMs: 1000 });
  await using deaf = await startFakeOpencode({ directory: '/home/user/deaf' });
  deaf.override('GET /global/event', { kind: 'answer', status: 503 });
  await world.register('deaf', deaf);
  await follow();
  const healths = fake.count('GET /global/health');
  const before = deaf.count('GET /global/health');
  await until('some rounds', () => deaf.count('GET /global/health') >= before + 3);
  expect(fake.count('GET /global/health')).toBe(healths);
  fake.override('GET /global/event', { kind: 'answer', status: 503 });
  fake.endStreams();
  await until('a round', () => fake.count('GET /global/health') > healths);
});
