import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';

import { startFaultProxy } from '../../rig/network/fault-proxy.ts';
import { until, within } from '../../rig/wait.ts';
import { openWorker } from '../worker.ts';
import { type Data, FORMS, ModernClient, TASKS, TASKS_AND_FORMS, type TaskShown } from './modern-client.ts';

const { temp, registry, worker, args, ...scene } = await openWorker({
  reply: (text) => (text === 'run' ? undefined : `re: ${text}`),
});
const proxy = await startFaultProxy(worker.url);
const register = (): Promise<string> => registry.add({ name: 'worker', port: proxy.port, cwd: worker.directory });
await register();
const folder = join(temp.path, '.local/state/opencode-mcp/tasks');

let client = start();
let hasOptions = false;
/** Number of permission replies before this test. */
let repliesBefore = 0;

/** Starts a server on the same state folder, as a client starts its next one. */
function start(more: readonly string[] = [], env: Readonly<Record<string, string>> = {}): ModernClient {
  return new ModernClient({
    leaps: true,
    args: [...args, ...more],
    // A call is limited to a second; a task is not.
    env: { HOME: temp.path, SEND_TIMEOUT_MS: '1000', ...env },
  });
}

async function stop(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
  client.server.kill(signal);
  await within(client.server.exited, 'the end of the server');
  await client[Symbol.asyncDispose]();
}

async function restart(...options: Parameters<typeof start>): Promise<void> {
  await stop();
  client = start(...options);
  hasOptions = options.length > 0;
}

beforeEach(() => {
  for (const kept of ['sessions', 'statuses', 'permissions'] as const) worker.state[kept].clear();
  worker.state.prompts.length = 0;
  repliesBefore = worker.count('POST /permission/:id/reply');
  proxy.pass();
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
  // The next test needs a server that has no options and follows no turn.
  if (hasOptions || worker.openStreams > 0) await restart();
  await until('the streams to end', () => worker.openStreams === 0);
});
afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await proxy.close();
  await scene.close();
});

const sentTexts = (): (string | undefined)[] => worker.state.prompts.map(({ body }) => body.parts?.[0]?.text);

const replies = (): number => worker.count('POST /permission/:id/reply') - repliesBefore;

const isFollowed = (): Promise<boolean> => until('the turn to be followed', () => worker.openStreams === 1);

async function resultOf(taskId: string): Promise<Data | undefined> {
  return (await client.taskIs(taskId, 'completed')).result;
}

/** The only question of a task, after the time that a person needs to read it. */
async function questionOf(taskId: string): Promise<{ readonly key: string; readonly params: Data }> {
  const { inputRequests = {}, statusMessage } = await client.taskIs(taskId, 'input_required');
  const [[key, { params }] = ['', { params: {} }]] = Object.entries(inputRequests);
  expect(statusMessage).toMatch(/^waits for you: permission per_\w+: «bash "ls"» of worker, \d+ s$/);
  await client.server.leap();
  return { key, params };
}

/** A turn that waits for a permission. */
function waitingTurn(): string {
  const { id } = worker.addSession();
  worker.state.begin(id, 'run');
  worker.addPermission({ sessionID: id });
  return id;
}

const allow = { action: 'accept', content: { decision: 'once' } };
const settledAs = (words: RegExp) => ({ structuredContent: { settled: expect.stringMatching(words) } });

describe('a call that may be a task', () => {
  test('is a task at once, outlasts the limit of a call, and ends like a call', async () => {
    const { task, sessionId } = await client.follow(worker);
    expect(task).toMatchObject({ resultType: 'task', status: 'working', ttlMs: 86_400_000, pollIntervalMs: 1_000 });
    expect(task.taskId).toMatch(/^[0-9a-f-]{36}$/);
    worker.state.say(sessionId, 'begun');
    const status = async (): Promise<string> => (await client.task(task.taskId)).statusMessage;
    await until('the status', async () => /^worker: writes, \d+ s$/.test(await status()));
    worker.state.finish(sessionId, ' and done');
    const first = await client.taskIs(task.taskId, 'completed');
    expect(first).toMatchObject({
      statusMessage: 'send: completed',
      result: { resultType: 'complete', structuredContent: { outcome: 'completed', text: 'begun and done' } },
    });
    expect(await client.task(task.taskId)).toEqual(first);
    expect(sentTexts()).toEqual(['run']);
  });

  test.each([
    ['its client declares no tasks', {}, 'send', { instance: 'worker', message: 'x' }],
    ['its tool follows no turn', TASKS, 'instances', {}],
    ['it only aborts', TASKS, 'send', { instance: 'worker', abort: true }],
    ['its arguments do not fit', TASKS, 'send', { mesage: 'x' }],
    ['its client declares only forms', FORMS, 'send', { instance: 'worker', message: 'x' }],
  ])('is not a task if %s', async (_, capabilities, name, args) => {
    expect(await client.call(name, args, { capabilities }, { task: { ttl: 1_000 } })).toMatchObject({
      resultType: 'complete',
    });
  });

  test('that fails is a completed task whose result is the error', async () => {
    const { taskId } = await client.begin('send', { instance: 'nobody', message: 'x' });
    const { result, statusMessage } = await client.taskIs(taskId, 'completed');
    expect(result).toMatchObject({ isError: true, content: [{ text: expect.stringMatching(/nobody/) }] });
    expect(statusMessage).toBe('send failed');
  });

  test('is answered as a call if it cannot be saved', async () => {
    await restart([], { SEND_TIMEOUT_MS: '60000', XDG_STATE_HOME: join(registry.path, 'worker.json') });
    expect(await client.call('send', { instance: 'worker', message: 'x' }, { capabilities: TASKS })).toMatchObject({
      resultType: 'complete',
      structuredContent: { text: 're: x' },
    });
    expect(client.server.stderr).toMatch(/cannot run a call in the background/);
  });

  test('is stored for its owner only, without the message text, and is unknown once it has expired', async () => {
    const { task } = await client.follow(worker);
    const file = join(folder, `${task.taskId}.json`);
    expect(await readdir(folder)).toEqual([`${task.taskId}.json`]);
    expect([(await stat(folder)).mode & 0o777, (await stat(file)).mode & 0o777]).toEqual([0o700, 0o600]);
    const kept = JSON.parse(await readFile(file, 'utf8')) as Data;
    expect(kept).toMatchObject({ args: { instance: 'worker' }, begun: [{ instance: 'worker' }] });
    expect(JSON.stringify(kept['args'])).not.toContain('run');
    await restart();
    await writeFile(file, JSON.stringify({ ...kept, createdAtMs: Date.now() - 86_400_001 }));
    const { error } = await client.answer('tasks/get', { taskId: task.taskId }, { capabilities: TASKS });
    expect(error?.code).toBe(-32_602);
  });

  test.each(['x', '../../../etc/passwd', '00000000-0000-0000-0000-000000000000'])(
    '%s is the id of no task',
    async (taskId) => {
      for (const method of ['tasks/get', 'tasks/cancel', 'tasks/update'])
        expect(await client.answer(method, { taskId, inputResponses: {} }, { capabilities: TASKS })).toMatchObject({
          error: { code: -32_602 },
        });
    },
  );

  test('sends nothing if its client cancels before it knows the task', async () => {
    const { id: session_id } = worker.addSession();
    const send = { name: 'send', arguments: { instance: 'worker', session_id, message: 'run' } };
    client.cancel(client.write('tools/call', send, { capabilities: TASKS }));
    // Also a task: a call may take longer than its limit of a second here.
    const { taskId } = await client.begin('send', { instance: 'worker', session_id, message: 'hello' });
    await resultOf(taskId);
    expect(sentTexts()).toEqual(['hello']);
  });
});

describe('cancelling', () => {
  test('stops following, says that the agent works on, and can be repeated', async () => {
    const { task } = await client.follow(worker);
    const cancel = (): Promise<Data> => client.ask('tasks/cancel', { taskId: task.taskId }, { capabilities: TASKS });
    expect(await Promise.all([cancel(), cancel()])).toEqual([{ resultType: 'complete' }, { resultType: 'complete' }]);
    await until('the stream to end', () => worker.openStreams === 0);
    const cancelled = await client.task(task.taskId);
    expect(cancelled).toMatchObject({
      status: 'cancelled',
      statusMessage: expect.stringMatching(/^No longer followed\. worker may still work on it/),
    });
    expect(worker.state.statuses.size).toBe(1);
    await restart();
    expect(await client.task(task.taskId)).toEqual(cancelled);
    expect(await cancel()).toEqual({ resultType: 'complete' });
  });

  test('a cancelled task that cannot be saved is no error', async () => {
    const { task } = await client.follow(worker);
    await rm(folder, { recursive: true });
    await writeFile(folder, '');
    expect(await client.ask('tasks/cancel', { taskId: task.taskId }, { capabilities: TASKS })).toEqual({
      resultType: 'complete',
    });
    expect((await client.task(task.taskId)).status).toBe('cancelled');
    await until('the log line', () => client.server.stderr.includes('cannot save the result of a task'));
  });

  test('a cancelled task does not send its queued message, and says so', async () => {
    const { id: session_id } = worker.addSession();
    const prompt = { path: /prompt_async$/ };
    proxy.rule(prompt, { kind: 'hold', gate: 'prompt' }, 1);
    const first = await client.begin('send', { instance: 'worker', session_id, message: 'first' });
    await proxy.waitForRequest(prompt);
    const listedBefore = proxy.count({ path: '/session' });
    const second = await client.begin('send', { instance: 'worker', session_id, message: 'second' });
    await proxy.waitForRequest({ path: '/session' }, { nth: listedBefore + 1 });
    await client.ask('tasks/cancel', { taskId: second.taskId }, { capabilities: TASKS });
    expect(await client.task(second.taskId)).toMatchObject({ statusMessage: 'Cancelled before anything was sent.' });
    proxy.release('prompt');
    await client.taskIs(first.taskId, 'completed');
    expect(sentTexts()).toEqual(['first']);
  });
});

describe('the next process', () => {
  test.each(['SIGKILL', 'SIGTERM'] as const)(
    'follows the turn of a process that %s ended, and the prompt runs once',
    async (signal) => {
      const { task, sessionId } = await client.follow(worker);
      await stop(signal);
      client = start();
      expect((await client.task(task.taskId)).status).toBe('working');
      await isFollowed();
      worker.state.finish(sessionId, 'at last');
      const done = await client.taskIs(task.taskId, 'completed');
      expect(done.result).toMatchObject({
        structuredContent: { instance: 'worker', outcome: 'completed', text: 'at last' },
      });
      expect(sentTexts()).toEqual(['run']);
      // The process after that returns the same task.
      await restart();
      expect(await client.task(task.taskId)).toEqual(done);
    },
  );

  test('waits for an instance that is missing, and finds it under another name', async () => {
    const { task, sessionId } = await client.follow(worker);
    await stop();
    await registry.remove('worker');
    worker.state.finish(sessionId, 'meanwhile');
    client = start();
    expect((await client.task(task.taskId)).status).toBe('working');
    await until('the status of a missing instance', async () =>
      (await client.task(task.taskId)).statusMessage.startsWith('worker: cannot be reached now'),
    );
    await registry.add({ name: 'renamed', port: proxy.port, cwd: worker.directory });
    expect(await resultOf(task.taskId)).toMatchObject({
      structuredContent: { instance: 'renamed', text: 'meanwhile' },
    });
    expect(sentTexts()).toEqual(['run']);
    await registry.remove('renamed');
    await register();
    await restart();
  });

  test('follows the turns of a wait', async () => {
    const { id } = worker.addSession();
    worker.state.begin(id, 'run');
    const task = await client.begin('wait', { instances: ['worker'] });
    await isFollowed();
    await restart();
    await client.task(task.taskId);
    await isFollowed();
    worker.state.finish(id, 'waited for');
    expect(await resultOf(task.taskId)).toMatchObject({
      structuredContent: { turns: [{ text: 'waited for' }] },
    });
  });
});

describe('a question in a task', () => {
  test('shows the exact command, and the answer settles it', async () => {
    const { task, sessionId } = await client.follow(worker);
    worker.addPermission({ sessionID: sessionId });
    const { key, params } = await questionOf(task.taskId);
    expect(params).toMatchObject({ mode: 'form', message: expect.stringContaining('```\nls\n```') });
    expect(await client.update(task.taskId, { [key]: allow })).toEqual({ resultType: 'complete' });
    await until('the answer', () => worker.state.permissions.size === 0);
    expect((await client.taskIs(task.taskId, 'working')).inputRequests).toBe(undefined);
    // Late, repeated and unknown answers are ignored.
    await client.update(task.taskId, { [key]: { action: 'decline' }, other: 5 });
    worker.state.finish(sessionId, 'done');
    expect(await resultOf(task.taskId)).toMatchObject(settledAs(/^allowed once: permission/));
  });

  test("is shown beside another task's question", async () => {
    const { task, sessionId } = await client.follow(worker);
    const { id: session_id } = worker.addSession();
    const second = await client.begin('send', { instance: 'worker', session_id, message: 'run' });
    await until('both streams', () => worker.state.statuses.size === 2 && worker.openStreams === 2);
    worker.addPermission({ sessionID: sessionId });
    await questionOf(task.taskId);
    worker.addPermission({ sessionID: session_id });
    await questionOf(second.taskId);
    expect((await client.task(task.taskId)).status).toBe('input_required');
  });

  test('is no longer shown once it is settled elsewhere', async () => {
    const { task, sessionId } = await client.follow(worker);
    const { id } = worker.addPermission({ sessionID: sessionId });
    const { key } = await questionOf(task.taskId);
    worker.state.settle(id, 'permission.replied', { reply: 'reject' });
    await client.taskIs(task.taskId, 'working');
    expect(await client.update(task.taskId, { [key]: allow })).toEqual({ resultType: 'complete' });
    worker.state.finish(sessionId, 'done');
    expect(await resultOf(task.taskId)).toMatchObject(settledAs(/settled elsewhere/));
    expect(replies()).toBe(0);
  });

  test('refuses an answer that comes faster than a person can read', async () => {
    const { task, sessionId } = await client.follow(worker);
    worker.addPermission({ sessionID: sessionId });
    const { inputRequests = {} } = await client.taskIs(task.taskId, 'input_required');
    const [key = ''] = Object.keys(inputRequests);
    await client.update(task.taskId, { [key]: allow });
    expect(await resultOf(task.taskId)).toMatchObject({
      structuredContent: { outcome: 'waiting', reason: expect.stringMatching(/within 500 ms/) },
    });
    expect(replies()).toBe(0);
  });

  test.each(['send', 'respond'] as const)(
    'of %s that a killed server left open is asked again by the next, and its answer is not repeated',
    async (tool) => {
      let sessionId = '';
      let task: TaskShown;
      if (tool === 'send') {
        ({ task, sessionId } = await client.follow(worker));
        worker.addPermission({ sessionID: sessionId });
      } else {
        sessionId = waitingTurn();
        task = await client.begin('respond', { instance: 'worker', reply: 'once' });
      }
      const before = await questionOf(task.taskId);
      await restart();
      const after = await questionOf(task.taskId);
      expect(after.key).not.toBe(before.key);
      expect(after.params).toEqual(before.params);
      const reject = { action: 'accept', content: { decision: 'reject' } };
      await client.update(task.taskId, { [before.key]: reject, [after.key]: allow });
      await until('the answer', () => worker.state.permissions.size === 0);
      await restart();
      await client.task(task.taskId);
      await isFollowed();
      worker.state.finish(sessionId, 'done');
      expect(await resultOf(task.taskId)).toMatchObject({ structuredContent: { text: 'done' } });
      expect(replies()).toBe(1);
      expect(sentTexts()).toEqual(tool === 'send' ? ['run'] : [undefined]);
    },
  );

  test.each([
    ['never', TASKS_AND_FORMS, /never/],
    ['human', TASKS, /cannot be asked here/],
  ])('obeys approve: %s', async (approve, capabilities, words) => {
    await restart(['--approve', approve]);
    waitingTurn();
    const { taskId } = await client.begin('respond', { instance: 'worker', reply: 'once' }, capabilities);
    expect(await resultOf(taskId)).toMatchObject({
      isError: true,
      content: [{ text: expect.stringMatching(words) }],
    });
    expect(replies()).toBe(0);
  });
});
