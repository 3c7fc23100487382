import { afterEach, beforeEach, expect, test } from 'vitest';

import { type FakeOpencode2, startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from './world.ts';

const DIRECTORY = '/home/ada/project';
const OTHER = '/home/ada/other';

let folder: TempDir;
let fake: FakeOpencode2;
let world: WatchWorld;

beforeEach(async () => {
  folder = tempDir('watch-opencode-2');
  fake = await startFakeOpencode2({ home: '/home/ada', directories: { [DIRECTORY]: {}, [OTHER]: {} } });
  await fake.register(folder.path);
  world = await openWatchWorld({ opencodeStateDir: folder.path });
  await world.followed('service');
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  await fake.close();
  await folder.close();
});

async function prompt(text: string, directory = DIRECTORY): Promise<string> {
  const { data } = await fake.json<{ data: { id: string } }>('POST', '/api/session', { location: { directory } });
  await fake.api(`/api/session/${data.id}/prompt`, { method: 'POST', body: { text } });
  return data.id;
}

test('one event stream reports the sessions of all directories', async () => {
  const [here, there] = [await prompt('gate here: Done.'), await prompt('gate there: Done.', OTHER)];
  expect(await world.becomes(here, 'busy')).toMatchObject({ directory: DIRECTORY, turnBeganMs: expect.any(Number) });
  expect(await world.becomes(there, 'busy')).toMatchObject({ directory: OTHER });
  expect(fake.streams).toBe(1);
  for (const name of ['here', 'there']) fake.model.release(name);
  await world.becomes(here, 'idle');
  await world.becomes(there, 'idle');
});

test('a session that asks for a permission or a form is listed as waiting, with the request', async () => {
  const id = await prompt('bash: rm -rf build');
  const { waiting } = await world.becomes(id, 'waiting');
  expect(waiting).toMatchObject([{ kind: 'permission', text: 'bash "rm -rf build"' }]);
  await fake.api(`/api/session/${id}/permission/${waiting[0]?.id}/reply`, {
    method: 'POST',
    body: { decision: 'once' },
  });
  await world.becomes(id, 'idle');
  const asking = await prompt('ask: Which color? | Red | Blue');
  const form = (await world.becomes(asking, 'waiting')).waiting[0];
  expect(form).toMatchObject({ kind: 'question', text: expect.stringMatching(/Which color\?.*Red \| Blue/) });
  await fake.api(`/api/session/${asking}/form/${form?.id}`, { method: 'DELETE' });
  await until('the session to continue', () => world.session(asking)?.state !== 'waiting');
});

test('the request of a sub-agent is listed for the sub-agent, not for its parent', async () => {
  const root = await prompt('task: bash: ls');
  const child = await until('a request of the sub-agent', () =>
    world.server('service')?.sessions.find((session) => session.parentId === root && session.state === 'waiting'),
  );
  expect(child.waiting).toMatchObject([{ ofSubAgent: true }]);
  expect(await world.becomes(root, 'busy')).toMatchObject({ waiting: [] });
});

test('a retry, which surveys do not show, is listed', async () => {
  fake.script('again', [
    { kind: 'retry', message: 'Rate limit' },
    { kind: 'gate', name: 'retrying' },
    { kind: 'say', chunks: ['Done.'] },
  ]);
  const id = await prompt('again');
  expect((await world.becomes(id, 'retrying')).reason).toBe('attempt 1: opencode says "Rate limit"');
  fake.model.release('retrying');
  await world.becomes(id, 'idle');
});

test('a failed turn is listed as failed, a stopped turn as interrupted', async () => {
  const failing = await prompt('fail 401');
  expect((await world.becomes(failing, 'failed')).reason).toMatch(/^opencode says "/);
  const stopped = await prompt('gate-mid cut: Begun. | Done.');
  await world.becomes(stopped, 'busy');
  await fake.api(`/api/session/${stopped}/interrupt`, { method: 'POST' });
  expect((await world.becomes(stopped, 'interrupted')).reason).toBe('it was stopped');
});

test('the new title of a session is listed', async () => {
  const id = await prompt('gate title: Done.');
  await world.becomes(id, 'busy');
  await fake.api(`/api/session/${id}`, { method: 'PATCH', body: { title: 'Another title' } });
  await until('the new title', () => world.session(id)?.title === 'Another title');
  fake.model.release('title');
});

test('a turn that continues after a restart of the service is listed until it ends', async () => {
  const id = await prompt('gate-mid resumed: Begun. | Done.');
  await world.becomes(id, 'busy');
  await fake.stop();
  await until('the end of the service to be noticed', () => world.server('service')?.checkedMs === undefined);
  await fake.restart();
  await fake.register(folder.path);
  await world.followed('service');
  fake.model.release('resumed');
  await world.becomes(id, 'idle');
  // The session is listed as running or as ended, not as both.
  expect(world.server('service')?.sessions.filter((session) => session.id === id)).toHaveLength(1);
});
