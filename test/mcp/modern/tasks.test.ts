import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { type FakeOpencode, startFakeOpencode } from '../../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../../rig/fault-proxy.ts';
import { openRegistry, type Registry } from '../../rig/registry.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { until, within } from '../../rig/wait.ts';
import { HANDSHAKE } from '../raw-server.ts';
import { type Data, FORMS, ModernClient, TASKS, TASKS_AND_FORMS, type TaskShown } from './modern-client.ts';

let temp: TempDir;
let registry: Registry;
let worker: FakeOpencode;
let proxy: FaultProxy;
let client: ModernClient;

/** A server on the same state folder, like the next one of a client. */
const start = (...more: readonly string[]): ModernClient =>
  new ModernClient({
    args: ['--registry-dir', registry.path, '--health-timeout-ms', '15000', ...more],
    // A call is limited to a second; a task is not.
    env: { HOME: temp.path, SEND_TIMEOUT_MS: '1000' },
  });

beforeEach(async () => {
  temp = tempDir('modern-tasks');
  registry = await openRegistry(`${temp.path}/registry`);
  worker = await startFakeOpencode({ reply: (text) => (text === 'run' ? undefined : `re: ${text}`) });
  proxy = await startFaultProxy(worker.url);
  await registry.add({ name: 'worker', port: proxy.port, cwd: worker.directory });
  client = start();
});
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await proxy.close();
  await worker.close();
  await temp.close();
});

const said = (): (string | undefined)[] => worker.state.prompts.map(({ body }) => body.parts?.[0]?.text);

/** A task that follows a running turn. */
async function running(): Promise<{ readonly task: TaskShown; readonly sessionId: string }> {
  const task = await client.begin('send', { instance: 'worker', message: 'run' });
  await until('the turn to be followed', () => worker.state.statuses.size === 1 && worker.openStreams === 1);
  const [sessionId = ''] = worker.state.statuses.keys();
  return { task, sessionId };
}

/** The only question of a task, after the moment that a person needs to read it. */
async function asked(taskId: string, one = client): Promise<{ readonly key: string; readonly params: Data }> {
  const { inputRequests = {}, statusMessage } = await one.taskIs(taskId, 'input_required');
  const [[key, { params }] = ['', { params: {} }]] = Object.entries(inputRequests);
  expect(statusMessage).toMatch(/^waits for you: permission per_\w+: «bash "ls"» of worker, \d+ s$/);
  await until(
    'a moment to pass',
    async () => Date.now() - Number(shown.get(key) ?? shown.set(key, Date.now()).get(key)) > 600,
  );
  return { key, params };
}
const shown = new Map<string, number>();

describe('a call that may be a task', () => {
  test('is a task at once, can be fetched before its answer, outlasts the limit of a call, and ends like a call', async () => {
    const { task, sessionId } = await running();
    expect(task).toMatchObject({ resultType: 'task', status: 'working', ttlMs: 86_400_000, pollIntervalMs: 1_000 });
    expect(task.taskId).toMatch(/^[0-9a-f-]{36}$/);
    worker.state.say(sessionId, 'begun');
    expect(
      (
        await until('what it does', async () => {
          const now = await client.task(task.taskId);
          return now.statusMessage.includes('writes') ? now : undefined;
        })
      ).statusMessage,
    ).toMatch(/^worker: writes, \d+ s$/);
    worker.state.finish(sessionId, ' and done');
    const first = await client.taskIs(task.taskId, 'completed');
    expect(first).toMatchObject({
      statusMessage: 'send: completed',
      result: { resultType: 'complete', structuredContent: { outcome: 'completed', text: 'begun and done' } },
    });
    expect(await client.task(task.taskId)).toEqual(first);
    expect(said()).toEqual(['run']);
  });

  test.each([
    ['undeclared', {}, 'instances', {}],
    ['declared, of a tool that follows no turn', TASKS, 'instances', {}],
    ['declared, of a send that only aborts', TASKS, 'send', { instance: 'worker', abort: true }],
    ['declared, with arguments that do not fit', TASKS, 'send', { mesage: 'x' }],
    ['undeclared, of a send', FORMS, 'send', { instance: 'worker', message: 'x' }],
  ])('is not a task if it is %s', async (_, capabilities, name, args) => {
    expect(await client.call(name, args, { capabilities }, { task: { ttl: 1_000 } })).toMatchObject({
      resultType: 'complete',
    });
  });

  test('that fails is a completed task whose result is the error', async () => {
    const { taskId } = await client.begin('send', { instance: 'nobody', message: 'x' });
    const { result, statusMessage } = await client.taskIs(taskId, 'completed');
    expect(result).toMatchObject({ isError: true, content: [{ text: expect.stringMatching(/nobody/) as string }] });
    expect(statusMessage).toBe('send failed');
  });

  test('is answered as a call if it cannot be saved', async () => {
    await client[Symbol.asyncDispose]();
    await writeFile(join(temp.path, 'no folder'), '');
    client = new ModernClient({
      args: ['--registry-dir', registry.path],
      env: { HOME: temp.path, XDG_STATE_HOME: join(temp.path, 'no folder') },
    });
    expect(await client.call('send', { instance: 'worker', message: 'x' }, { capabilities: TASKS })).toMatchObject({
      resultType: 'complete',
      structuredContent: { text: 're: x' },
    });
    expect(client.server.stderr).toMatch(/cannot run a call in the background/);
  });

  test('is stored for its owner only, without the message text, and is unknown once it has expired', async () => {
    const { task } = await running();
    const folder = join(temp.path, '.local/state/opencode-mcp/tasks');
    const file = join(folder, `${task.taskId}.json`);
    expect(await readdir(folder)).toEqual([`${task.taskId}.json`]);
    expect([(await stat(folder)).mode & 0o777, (await stat(file)).mode & 0o777]).toEqual([0o700, 0o600]);
    const kept = JSON.parse(await readFile(file, 'utf8')) as Data;
    expect(kept).toMatchObject({ args: { instance: 'worker' }, begun: [{ instance: 'worker' }] });
    expect(JSON.stringify(kept['args'])).not.toContain('run');
    await client[Symbol.asyncDispose]();
    await writeFile(file, JSON.stringify({ ...kept, createdAtMs: Date.now() - 86_400_001 }));
    client = start();
    const { error } = await client.answer('tasks/get', { taskId: task.taskId }, { capabilities: TASKS });
    expect(error?.code).toBe(-32_602);
  });

  test.each(['x', '../../../etc/passwd', '00000000-0000-0000-0000-000000000000'])('%s is none', async (taskId) => {
    for (const method of ['tasks/get', 'tasks/cancel', 'tasks/update'])
      expect((await client.answer(method, { taskId, inputResponses: {} }, { capabilities: TASKS })).error?.code).toBe(
        -32_602,
      );
  });

  test('sends nothing if its client cancels before it knows the task', async () => {
    const { id: session_id } = worker.addSession();
    const id = client.write(
      'tools/call',
      { name: 'send', arguments: { instance: 'worker', session_id, message: 'run' } },
      { capabilities: TASKS },
    );
    client.server.write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } });
    // Also a task: a call may take longer than its limit of a second here.
    const { taskId } = await client.begin('send', { instance: 'worker', session_id, message: 'hello' });
    await client.taskIs(taskId, 'completed');
    expect(said()).toEqual(['hello']);
  });
});

describe('cancelling', () => {
  test('stops following, says that the agent works on, and can be repeated', async () => {
    const { task } = await running();
    const cancel = (): Promise<Data> => client.ask('tasks/cancel', { taskId: task.taskId }, { capabilities: TASKS });
    expect(await Promise.all([cancel(), cancel()])).toEqual([{ resultType: 'complete' }, { resultType: 'complete' }]);
    await until('the stream to be let go', () => worker.openStreams === 0);
    const cancelled = await client.task(task.taskId);
    expect(cancelled).toMatchObject({
      status: 'cancelled',
      statusMessage: expect.stringMatching(/^No longer followed\. worker may still work on it/) as string,
    });
    expect(worker.state.statuses.size).toBe(1);
    await client[Symbol.asyncDispose]();
    client = start();
    expect(await client.task(task.taskId)).toEqual(cancelled);
    expect(await cancel()).toEqual({ resultType: 'complete' });
  });

  test('a cancelled task that cannot be saved is no error', async () => {
    const { task } = await running();
    const folder = join(temp.path, '.local/state/opencode-mcp/tasks');
    await rm(folder, { recursive: true });
    await writeFile(folder, '');
    expect(await client.ask('tasks/cancel', { taskId: task.taskId }, { capabilities: TASKS })).toEqual({
      resultType: 'complete',
    });
    expect((await client.task(task.taskId)).status).toBe('cancelled');
    await until('it to be logged', () => client.server.stderr.includes('cannot save the result of a task'));
  });

  test('a queued message is not sent, and the task says so', async () => {
    const { id: session_id } = worker.addSession();
    const prompt = { path: /prompt_async$/ };
    proxy.rule(prompt, { kind: 'hold', gate: 'prompt' }, 1);
    const first = await client.begin('send', { instance: 'worker', session_id, message: 'first' });
    await proxy.waitForRequest(prompt);
    const looked = proxy.count({ path: '/session' });
    const second = await client.begin('send', { instance: 'worker', session_id, message: 'second' });
    await proxy.waitForRequest({ path: '/session' }, { nth: looked + 1 });
    await client.ask('tasks/cancel', { taskId: second.taskId }, { capabilities: TASKS });
    expect(await client.task(second.taskId)).toMatchObject({ statusMessage: 'Cancelled before anything was sent.' });
    proxy.release('prompt');
    await client.taskIs(first.taskId, 'completed');
    expect(said()).toEqual(['first']);
  });
});

describe('the next process', () => {
  test.each(['SIGKILL', 'SIGTERM'] as const)(
    'goes on with what the one before sent (%s), and the prompt runs once',
    async (signal) => {
      const { task, sessionId } = await running();
      client.server.kill(signal);
      await within(client.server.exited, 'the end');
      await client[Symbol.asyncDispose]();
      client = start();
      expect((await client.task(task.taskId)).status).toBe('working');
      await until('it to follow', () => worker.openStreams === 1);
      worker.state.finish(sessionId, 'at last');
      const done = await client.taskIs(task.taskId, 'completed');
      expect(done.result).toMatchObject({
        structuredContent: { instance: 'worker', outcome: 'completed', text: 'at last' },
      });
      expect(said()).toEqual(['run']);
      // And the process after that.
      await client[Symbol.asyncDispose]();
      client = start();
      await worker.close();
      expect(await client.task(task.taskId)).toEqual(done);
    },
  );

  test('finds the instance under another name, and waits for one that is not there yet', async () => {
    const { task, sessionId } = await running();
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    await registry.remove('worker');
    worker.state.finish(sessionId, 'meanwhile');
    client = start();
    expect((await client.task(task.taskId)).status).toBe('working');
    await until('it to be missed', async () =>
      (await client.task(task.taskId)).statusMessage.startsWith('worker: cannot be reached now'),
    );
    await registry.add({ name: 'renamed', port: proxy.port, cwd: worker.directory });
    const { result } = await client.taskIs(task.taskId, 'completed');
    expect(result).toMatchObject({ structuredContent: { instance: 'renamed', text: 'meanwhile' } });
    expect(said()).toEqual(['run']);
  });

  test('sends nothing that the process before did not send', async () => {
    proxy.rule({ path: '/event' }, { kind: 'hold', gate: 'event' });
    const task = await client.begin('send', { instance: 'worker', message: 'run' });
    await proxy.waitForRequest({ path: '/event' });
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    proxy.release('event');
    client = start();
    const { result } = await client.taskIs(task.taskId, 'completed');
    expect(result).toMatchObject({
      isError: true,
      content: [{ text: expect.stringMatching(/nothing was sent/) as string }],
    });
    expect(said()).toEqual([]);
  });

  test('continues a wait', async () => {
    const { id } = worker.addSession();
    worker.state.begin(id, 'run');
    const task = await client.begin('wait', { instances: ['worker'] });
    await until('it to follow', () => worker.openStreams === 1);
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    client = start();
    await client.task(task.taskId);
    await until('it to follow', () => worker.openStreams === 1);
    worker.state.finish(id, 'waited for');
    expect((await client.taskIs(task.taskId, 'completed')).result).toMatchObject({
      structuredContent: { turns: [{ text: 'waited for' }] },
    });
  });
});

describe('a question in a task', () => {
  test('shows the exact command, and the answer settles it', async () => {
    const { task, sessionId } = await running();
    worker.addPermission({ sessionID: sessionId });
    const { key, params } = await asked(task.taskId);
    expect(params).toMatchObject({ mode: 'form', message: expect.stringContaining('```\nls\n```') as string });
    expect(await client.update(task.taskId, { [key]: { action: 'accept', content: { decision: 'once' } } })).toEqual({
      resultType: 'complete',
    });
    await until('it to be settled', () => worker.state.permissions.size === 0);
    expect((await client.taskIs(task.taskId, 'working')).inputRequests).toBe(undefined);
    // Late, repeated and unknown answers are ignored.
    await client.update(task.taskId, { [key]: { action: 'decline' }, other: 5 });
    worker.state.finish(sessionId, 'done');
    expect((await client.taskIs(task.taskId, 'completed')).result).toMatchObject({
      structuredContent: { settled: expect.stringMatching(/^allowed once: permission/) as string },
    });
  });

  test("is shown beside another task's, which the person may leave for later", async () => {
    const { task, sessionId } = await running();
    const { id: session_id } = worker.addSession();
    const second = await client.begin('send', { instance: 'worker', session_id, message: 'run' });
    await until('both to be followed', () => worker.state.statuses.size === 2 && worker.openStreams === 2);
    worker.addPermission({ sessionID: sessionId });
    await asked(task.taskId);
    worker.addPermission({ sessionID: session_id });
    await asked(second.taskId);
    expect((await client.task(task.taskId)).status).toBe('input_required');
  });

  test('is no longer shown once it is settled elsewhere', async () => {
    const { task, sessionId } = await running();
    const { id } = worker.addPermission({ sessionID: sessionId });
    const { key } = await asked(task.taskId);
    worker.state.settle(id, 'permission.replied', { reply: 'once' });
    await client.taskIs(task.taskId, 'working');
    expect(await client.update(task.taskId, { [key]: { action: 'accept', content: { decision: 'reject' } } })).toEqual({
      resultType: 'complete',
    });
    worker.state.finish(sessionId, 'done');
    expect((await client.taskIs(task.taskId, 'completed')).result).toMatchObject({
      structuredContent: { settled: expect.stringMatching(/settled elsewhere/) as string },
    });
    expect(worker.count('POST /permission/:id/reply')).toBe(0);
  });

  test('is not answered by a client itself, at once or without having got it', async () => {
    const { task, sessionId } = await running();
    worker.addPermission({ sessionID: sessionId });
    const { inputRequests = {} } = await client.taskIs(task.taskId, 'input_required');
    const [key = ''] = Object.keys(inputRequests);
    await client.update(task.taskId, { [key]: { action: 'accept', content: { decision: 'once' } } });
    expect((await client.taskIs(task.taskId, 'completed')).result).toMatchObject({
      structuredContent: { outcome: 'waiting', reason: expect.stringMatching(/within 500 ms/) as string },
    });
    expect(worker.count('POST /permission/:id/reply')).toBe(0);
  });

  test('that is open when its process is killed is asked again by the next, under another key', async () => {
    const { task, sessionId } = await running();
    worker.addPermission({ sessionID: sessionId });
    const before = await asked(task.taskId);
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    client = start();
    const after = await asked(task.taskId);
    expect(after.key).not.toBe(before.key);
    expect(after.params).toEqual(before.params);
    await client.update(task.taskId, {
      [before.key]: { action: 'accept', content: { decision: 'reject' } },
      [after.key]: { action: 'accept', content: { decision: 'once' } },
    });
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'done');
    expect((await client.taskIs(task.taskId, 'completed')).result).toMatchObject({
      structuredContent: { settled: expect.stringMatching(/^allowed once/) as string },
    });
    expect(said()).toEqual(['run']);
  });

  test.each([
    ['never', TASKS_AND_FORMS, /never/],
    ['human', TASKS, /cannot be asked here/],
  ])('approve: %s holds', async (approve, capabilities, words) => {
    await client[Symbol.asyncDispose]();
    client = start('--approve', approve);
    const { id: sessionId } = worker.addSession();
    worker.state.begin(sessionId, 'run');
    worker.addPermission({ sessionID: sessionId });
    const { taskId } = await client.begin('respond', { instance: 'worker', reply: 'once' }, capabilities);
    const { result } = await client.taskIs(taskId, 'completed');
    expect(result).toMatchObject({ isError: true, content: [{ text: expect.stringMatching(words) as string }] });
    expect(worker.count('POST /permission/:id/reply')).toBe(0);
  });

  test('the next process follows a respond that settled; one that did not asks again', async () => {
    const { id: sessionId } = worker.addSession();
    worker.state.begin(sessionId, 'run');
    worker.addPermission({ sessionID: sessionId });
    const { taskId } = await client.begin('respond', { instance: 'worker', reply: 'once' });
    await asked(taskId);
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    client = start();
    const { key } = await asked(taskId);
    await client.update(taskId, { [key]: { action: 'accept', content: { decision: 'once' } } });
    await until('it to be settled', () => worker.state.permissions.size === 0);
    client.server.kill('SIGKILL');
    await client[Symbol.asyncDispose]();
    client = start();
    await client.task(taskId);
    await until('it to follow', () => worker.openStreams === 1);
    worker.state.finish(sessionId, 'done');
    expect((await client.taskIs(taskId, 'completed')).result).toMatchObject({ structuredContent: { text: 'done' } });
    expect(worker.count('POST /permission/:id/reply')).toBe(1);
  });
});

test('a call that asks for a task of 2025-11-25 runs as a call', async () => {
  client.server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 2, method: 'tasks/get', params: { taskId: 'x' } });
  expect((await client.server.answerTo(2)).error?.code).toBe(-32_601);
  expect((await client.server.answerTo(0)).result?.['capabilities']).not.toHaveProperty('tasks');
  const params = { name: 'instances', arguments: {}, task: { ttl: 60_000 } };
  client.server.write({ jsonrpc: '2.0', id: 3, method: 'tools/call', params });
  expect((await client.server.answerTo(3)).result).toHaveProperty('structuredContent.total', 1);
});
