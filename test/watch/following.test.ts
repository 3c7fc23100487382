import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import type { OwnServers } from '../../src/watch/own-servers.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { newId } from '../rig/fake/fake-objects.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { Gates } from '../rig/gates.ts';
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

/** Replaces the world with a new one that has other options. */
async function reopen(options: Parameters<typeof openWatchWorld>[0]): Promise<void> {
  await world[Symbol.asyncDispose]();
  world = await openWatchWorld(options);
}

async function follow(): Promise<void> {
  await world.register('one', fake);
  await world.followed('one');
}

/** As `follow`; resolves once no more surveys are due. The second survey comes when the server has surely subscribed. */
async function followQuietly(): Promise<void> {
  await follow();
  await until('the second survey', () => fake.count('GET /session/status') >= 3);
}

function beginTurn(): string {
  const { id } = fake.addSession();
  fake.state.begin(id, 'Go');
  return id;
}

/** Starts a second watcher of the same servers. */
async function followWith(
  clock: Clock,
  own: OwnServers = world.instances,
): Promise<AsyncDisposable & { readonly watcher: LiveWatcher }> {
  const watcher = new LiveWatcher({ own, clock, logger: silentLogger });
  watcher.start();
  await until('the watcher to follow', () => watcher.servers()[0]?.checkedMs !== undefined);
  return { watcher, [Symbol.asyncDispose]: () => watcher.close() };
}

/** Begins a turn, and waits until it is listed. */
async function beginBusy(): Promise<string> {
  const id = beginTurn();
  await world.becomes(id, 'busy');
  return id;
}

describe('the stream', () => {
  test('is one per server, for all of its directories', async () => {
    await follow();
    expect([fake.openStreams, fake.count('GET /global/event'), fake.count('GET /event')]).toEqual([1, 1, 0]);
  });

  test.each(['end', 'destroy'] as const)(
    'is opened again after the %s of the connection, and a survey shows the changes that it missed',
    async (how) => {
      await follow();
      const kept = await beginBusy();
      fake.override('GET /global/event', { kind: 'answer', status: 503 });
      fake.endStreams(how);
      await until('the end to be noticed', () => world.server('one')?.checkedMs === undefined);
      // The last known state is still listed.
      expect(world.session(kept)?.state).toBe('busy');
      fake.state.finish(kept, 'Done');
      const missed = beginTurn();
      fake.override('GET /global/event', undefined);
      await world.becomes(kept, 'idle');
      await world.becomes(missed, 'busy');
      await world.followed('one');
      expect(fake.openStreams).toBe(1);
    },
  );

  test('that ends during a survey leaves the server unchecked', async () => {
    await follow();
    const gates = new Gates();
    gates.open('first');
    let gate = 'first';
    const { instances } = world;
    const own: OwnServers = {
      servers: () => instances.servers(),
      instancesOf: (id) => instances.instancesOf(id),
      connection: (id, signal) => instances.connection(id, signal),
      survey: async (id, signal) => {
        const survey = await instances.survey(id, signal);
        await gates.pass(gate, signal);
        return survey;
      },
      setFollowed() {},
      worksIn() {},
      onChange: () => () => {},
    };
    await using watched = await followWith(systemClock, own);
    const server = () => watched.watcher.servers()[0];
    gate = 'second';
    const id = beginTurn();
    await gates.reached('second');
    fake.override('GET /global/event', { kind: 'answer', status: 503 });
    fake.endStreams();
    await until('the end to be noticed', () => server()?.checkedMs === undefined);
    gate = 'third';
    gates.open('second');
    await gates.reached('third');
    expect(server()).toMatchObject({ checkedMs: undefined, sessions: [{ id }] });
  });

  test('only causes surveys: events that contradict the answers change nothing', async () => {
    await followQuietly();
    const id = await beginBusy();
    fake.emit('session.idle', { sessionID: id });
    fake.emit('permission.asked', { id: newId('per'), sessionID: id });
    const surveys = fake.count('GET /session/status');
    await until('a survey', () => fake.count('GET /session/status') > surveys);
    await until('its answers', () => fake.load.current === 0);
    expect(world.session(id)).toMatchObject({ state: 'busy', waiting: [] });
  });
});

describe('events', () => {
  test('of a streaming turn cost no request', async () => {
    await followQuietly();
    const id = await beginBusy();
    const surveys = fake.count('GET /session/status');
    for (let word = 0; word < 500; word += 1) fake.state.say(id, `word ${word} `);
    const last = fake.addPermission({ sessionID: id });
    const waiting = await world.becomes(id, 'waiting');
    expect(waiting.waiting.map((one) => one.id)).toEqual([last.id]);
    // One survey for the request, and one that the first survey may have scheduled.
    expect(fake.count('GET /session/status') - surveys).toBeLessThanOrEqual(2);
  });

  test('of a running session are listed with their time, until it ends', async () => {
    await follow();
    const id = await beginBusy();
    const seenMs = world.server('one')?.lastEvents.get(id) ?? 0;
    expect(seenMs).toBeGreaterThan(0);
    fake.emit('message.part.delta', { sessionID: id, messageID: newId('msg'), partID: newId('prt'), delta: 'word' });
    await until('the time of the event', () => (world.server('one')?.lastEvents.get(id) ?? 0) > seenMs);
    fake.state.finish(id, 'Done');
    await world.becomes(id, 'idle');
    expect(world.server('one')?.lastEvents.has(id)).toBe(false);
  });
});

describe('a server that answers slowly', () => {
  test('keeps its last state, and other servers are still surveyed', async () => {
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    await world.register('two', other);
    await world.followed('two');
    await followQuietly();
    const id = await beginBusy();
    fake.override('GET /session/status', { kind: 'hang' });
    const surveys = fake.count('GET /session/status');
    fake.addPermission({ sessionID: id });
    await until('a survey', () => fake.count('GET /session/status') > surveys);
    const { id: otherSession } = other.addSession();
    other.state.begin(otherSession, 'Go');
    await world.becomes(otherSession, 'busy');
    expect(world.session(id)).toMatchObject({ state: 'busy', waiting: [] });
  });

  test('does not count as idle', async () => {
    await reopen({ healthCheckTimeoutMs: 300 });
    await followQuietly();
    const id = await beginBusy();
    const surveys = fake.count('GET /session/status');
    fake.override('GET /session/status', { kind: 'hang' });
    fake.state.finish(id, 'Done');
    await until('surveys without an answer', () => fake.count('GET /session/status') >= surveys + 4);
    expect(world.session(id)?.state).toBe('busy');
    fake.override('GET /session/status', undefined);
    await world.becomes(id, 'idle');
  });

  test('is surveyed again until its earlier sessions were listed', async () => {
    const { id } = fake.addSession();
    fake.state.begin(id, 'Go');
    fake.state.finish(id, 'Done');
    fake.override('GET /session', { kind: 'answer', status: 500 });
    await followQuietly();
    expect(world.session(id)).toBeUndefined();
    fake.override('GET /session', undefined);
    await world.becomes(id, 'idle');
  });

  test('is surveyed again until it answers', async () => {
    await reopen({ healthCheckTimeoutMs: 500 });
    await followQuietly();
    const id = await beginBusy();
    fake.override('GET /permission', { kind: 'hang' }, 3);
    fake.addPermission({ sessionID: id });
    await world.becomes(id, 'waiting');
  });
});

describe('a server in which nothing runs', () => {
  test('gets only requests for its status, at most two a minute', async () => {
    await followQuietly();
    const clock = new ManualClock();
    await using watched = await followWith(clock);
    await until('a second survey', async () => {
      await clock.advance(1000);
      return fake.load.current === 0 && fake.count('GET /session/status') >= 6;
    });
    const before = counts();
    const checkedMs = watched.watcher.servers()[0]?.checkedMs ?? 0;
    await clock.advance(MINUTE_MS);
    await until('a check', () => (watched.watcher.servers()[0]?.checkedMs ?? 0) > checkedMs);
    const after = counts();
    expect({ ...after, status: after.status - before.status }).toEqual({ ...before, status: expect.any(Number) });
    expect(after.status - before.status).toBeLessThanOrEqual(2);
  });

  test('is surveyed if a turn began without an event', async () => {
    await followQuietly();
    const clock = new ManualClock();
    await using watched = await followWith(clock);
    const { id } = fake.addSession();
    await until('the session to be listed', async () => {
      await clock.advance(1000);
      return watched.watcher.servers()[0]?.instances[0]?.overview?.session?.id === id;
    });
    // The event of this change is lost.
    fake.state.statuses.set(id, { type: 'busy' });
    await until('the work to be listed', async () => {
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
});

describe('a server that ends', () => {
  test('is gone with its registration, and its running sessions are interrupted', async () => {
    await follow();
    const [id, done] = [beginTurn(), beginTurn()];
    fake.state.finish(done, 'Done');
    await world.becomes(id, 'busy');
    await fake.close();
    await world.registry.remove('one');
    expect(await world.becomes(id, 'interrupted')).toMatchObject({ reason: 'its server ended while it ran' });
    expect(world.server('one')).toMatchObject({ checkedMs: undefined, sessions: [{ id }] });
  });

  test('is listed for an hour with the sessions that ran in it', async () => {
    await follow();
    await beginBusy();
    const clock = new ManualClock();
    await using watched = await followWith(clock);
    const listed = () => watched.watcher.servers().flatMap(({ sessions }) => sessions.map(({ state }) => state));
    await until('the session', () => listed()[0] === 'busy');
    await fake.close();
    await world.registry.remove('one');
    await until('its end', () => listed()[0] === 'interrupted');
    await clock.advance(60 * MINUTE_MS);
    expect(listed()).toEqual(['interrupted']);
    await clock.advance(1);
    expect(listed()).toEqual([]);
  });

  test('is gone without an event if it was killed, since no process holds its port', async () => {
    let isOurs = true;
    await reopen({ ports: { ours: (claims) => Promise.resolve(isOurs ? claims : []) } });
    await follow();
    const id = await beginBusy();
    isOurs = false;
    fake.endStreams('destroy');
    await world.becomes(id, 'interrupted');
  });

  test('and restarts shows its interrupted sessions from its store', async () => {
    await follow();
    const id = await beginBusy();
    await fake.close();
    await world.registry.remove('one');
    await world.becomes(id, 'interrupted');
    await using restarted = await startFakeOpencode({ directory: DIRECTORY });
    restarted.addSession({ id, title: 'From the store' });
    restarted.state.messages.set(id, fake.state.messages.get(id) ?? []);
    await world.register('two', restarted);
    await world.followed('two');
    await until('the ended one to be left out', () => world.server('one') === undefined);
    expect(world.session(id)).toMatchObject({ title: 'From the store', state: 'interrupted' });
  });

  test('is not kept if nothing ran in it', async () => {
    await follow();
    await fake.close();
    await world.registry.remove('one');
    await until('it to be gone', () => world.server('one') === undefined);
  });
});

test('a listener is called for each change, until it unsubscribes or the watcher is closed', async () => {
  await follow();
  const calls = { left: 0, stays: 0 };
  const unsubscribe = world.watcher.onChange(() => (calls.left += 1));
  world.watcher.onChange(() => (calls.stays += 1));
  const id = beginTurn();
  await world.becomes(id, 'busy');
  await until('both calls', () => calls.left > 0 && calls.stays > 0);
  unsubscribe();
  const { left } = calls;
  fake.state.finish(id, 'Done');
  await world.becomes(id, 'idle');
  expect(calls.left).toBe(left);
  await world.watcher.close();
  await until('the stream to end', () => fake.openStreams === 0);
  const { stays } = calls;
  beginTurn();
  await world.watcher.close();
  expect(calls.stays).toBe(stays);
});

test("the fleet's rounds skip a followed server, and probe it while its stream is down", async () => {
  await reopen({ discoveryIntervalMs: 1000 });
  await using unfollowed = await startFakeOpencode({ directory: '/home/user/unfollowed' });
  unfollowed.override('GET /global/event', { kind: 'answer', status: 503 });
  await world.register('unfollowed', unfollowed);
  await followQuietly();
  const healthRequests = fake.count('GET /global/health');
  const before = unfollowed.count('GET /global/health');
  await until('some rounds', () => unfollowed.count('GET /global/health') >= before + 3);
  expect(fake.count('GET /global/health')).toBe(healthRequests);
  fake.override('GET /global/event', { kind: 'answer', status: 503 });
  fake.endStreams();
  await until('a round', () => fake.count('GET /global/health') > healthRequests);
});
