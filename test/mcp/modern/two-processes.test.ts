import { mkdir, readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../../src/base/clock.ts';
import { type KeptTask, TaskStore } from '../../../src/mcp/modern/task-store.ts';
import { startFakeOpencode } from '../../rig/fake/fake-opencode.ts';
import { startFaultProxy } from '../../rig/network/fault-proxy.ts';
import { until } from '../../rig/wait.ts';
import { openWorker, type WorkerScene } from '../worker.ts';
import { ModernClient, TASKS } from './modern-client.ts';

let scene: WorkerScene;
let worker: WorkerScene['worker'];
let clients: ModernClient[];

/** A client with another server on the same state folder. */
function startClient(): ModernClient {
  const client = new ModernClient({ args: scene.args, env: { HOME: scene.temp.path } });
  clients.push(client);
  return client;
}

beforeEach(async () => {
  clients = [];
  scene = await openWorker();
  ({ worker } = scene);
});
afterEach(async () => {
  for (const client of clients) await client[Symbol.asyncDispose]();
  await scene.close();
});

describe('two servers that follow one task', () => {
  test('report the same end: a task that one reported as cancelled is not completed by the other', async () => {
    const [one, other] = [startClient(), startClient()];
    const { task, sessionId } = await one.follow(worker);
    await other.ask('tasks/cancel', { taskId: task.taskId }, { capabilities: TASKS });
    const cancelled = await other.task(task.taskId);
    expect(cancelled.status).toBe('cancelled');
    worker.state.finish(sessionId, 'done');
    expect(await one.taskIs(task.taskId, 'completed', 'cancelled')).toEqual(cancelled);
    expect(await startClient().task(task.taskId)).toEqual(cancelled);
    expect(worker.state.prompts).toHaveLength(1);
  });

  test('never send a message that one of them has reported as not sent', async () => {
    const [one, other] = [startClient(), startClient()];
    const { sessionId: session_id } = await one.follow(worker);
    const args = { instance: 'worker', session_id, message: 'second', when_busy: 'queue' };
    const { taskId } = await one.begin('send', args);
    await until('the queued send', () => worker.openStreams === 2);
    const ended = await other.taskIs(taskId, 'completed');
    expect(ended.result).toMatchObject({
      content: [{ text: expect.stringMatching(/^The server ended before it sent the message; nothing was sent/) }],
    });
    worker.state.finish(session_id, 'done');
    expect(await one.taskIs(taskId, 'completed')).toEqual(ended);
    expect(worker.state.prompts).toHaveLength(1);
  });
});

test('a send to several instances names those that it did not reach before its server was killed', async () => {
  await using second = await startFakeOpencode({ directory: '/home/user/second' });
  await using proxy = await startFaultProxy(second.url);
  await scene.registry.add({ name: 'second', port: proxy.port, cwd: second.directory });
  proxy.rule({ path: '/event' }, { kind: 'hold', gate: 'event' });
  const one = startClient();
  const { taskId } = await one.begin('send', { instance: ['worker', 'second'], message: 'run' });
  await proxy.waitForRequest({ path: '/event' });
  await until('the turn of the first', () => worker.state.statuses.size === 1 && worker.openStreams === 1);
  one.server.kill('SIGKILL');
  await one.server.exited;
  proxy.release('event');
  const other = startClient();
  await other.task(taskId);
  await until('the turn to be followed', () => worker.openStreams === 1);
  worker.state.finish([...worker.state.statuses.keys()][0] ?? '', 'done');
  const { result } = await other.taskIs(taskId, 'completed');
  expect(result).toMatchObject({
    structuredContent: {
      outcome: '1 completed, 1 error',
      turns: [
        { instance: 'worker', text: 'done' },
        { instance: 'worker, second', reason: expect.stringMatching(/only worker got it/) },
      ],
    },
  });
  expect(second.state.prompts).toEqual([]);
});

describe('the store', () => {
  const task: KeptTask = { tool: 'wait', args: {}, createdAtMs: Date.now(), updatedAtMs: 0, ttlMs: 60_000, begun: [] };
  const id = '11111111-2222-3333-4444-555555555555';

  test('keeps the first end, and leaves no temporary file', async () => {
    const [one, other] = [new TaskStore(scene.temp.path, systemClock), new TaskStore(scene.temp.path, systemClock)];
    const ended = (message: string): KeptTask => ({ ...task, end: { status: 'completed', message } });
    await one.write(id, task);
    const kept = await Promise.all([one.write(id, ended('one')), other.write(id, ended('other'))]);
    expect(kept[0]).toEqual(kept[1]);
    // A task that still runs elsewhere does not undo the end.
    await other.write(id, { ...task, updatedAtMs: 1 });
    expect(await one.read(id)).toEqual(kept[0]);
    expect((await readdir(scene.temp.path)).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('does not delete an old folder inside its folder', async () => {
    const folder = join(scene.temp.path, 'tasks');
    await mkdir(join(folder, 'old'), { recursive: true });
    await utimes(join(folder, 'old'), 0, 0);
    await new TaskStore(folder, systemClock).write(id, task);
    expect((await readdir(folder)).toSorted()).toEqual([`${id}.json`, 'old']);
  });
});
