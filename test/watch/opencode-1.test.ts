import { afterEach, beforeEach, expect, test } from 'vitest';

import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { openWatchWorld, type WatchWorld } from './world.ts';

const DIRECTORY = '/home/user/project';

let fake: FakeOpencode;
let world: WatchWorld;

beforeEach(async () => {
  fake = await startFakeOpencode({ directory: DIRECTORY });
  world = await openWatchWorld();
  await world.register('one', fake);
  await world.followed('one');
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  await fake.close();
});

const begin = (title = 'A title'): string => {
  const { id } = fake.addSession({ title });
  fake.state.begin(id, 'Go');
  return id;
};

test('a turn is seen from its beginning to its end', async () => {
  const before = Date.now();
  const id = begin();
  const running = await world.becomes(id, 'busy');
  expect(running).toMatchObject({ id, title: 'A title', directory: DIRECTORY, waiting: [] });
  expect(running.turnBeganMs).toBeGreaterThanOrEqual(before);
  expect(running.sinceMs).toBe(running.turnBeganMs);
  fake.state.finish(id, 'Done');
  const ended = await world.becomes(id, 'idle');
  expect(ended).toMatchObject({ turnBeganMs: running.turnBeganMs, waiting: [] });
  expect(ended.reason).toBeUndefined();
});

test('what it waits for, and that it goes on', async () => {
  const id = begin();
  const { turnBeganMs } = await world.becomes(id, 'busy');
  const permission = fake.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
  const waiting = await world.becomes(id, 'waiting');
  expect(waiting).toMatchObject({
    turnBeganMs,
    waiting: [{ kind: 'permission', id: permission.id, sessionId: id, text: 'bash "rm -rf build"' }],
  });
  fake.state.settle(permission.id, 'permission.replied', { reply: 'once' });
  expect(await world.becomes(id, 'busy')).toMatchObject({ turnBeganMs, waiting: [] });
  fake.addQuestion({ sessionID: id });
  expect((await world.becomes(id, 'waiting')).waiting).toMatchObject([{ kind: 'question', text: 'Go on? Yes | No' }]);
});
