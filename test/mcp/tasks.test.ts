import {
  CallToolResultSchema,
  CreateTaskResultSchema,
  GetTaskResultSchema,
  CancelTaskResultSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { startFakeOpencode, type FakeOpencode } from '../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { type McpChild, startMcpChild } from '../rig/mcp-child.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { HANDSHAKE, startRawServer } from './raw-server.ts';

let temp: TempDir;
let worker: FakeOpencode;
let way: FaultProxy;
let registryArgs: readonly string[];
let server: McpChild;

beforeEach(async () => {
  temp = tempDir('tasks');
  const registry = await openRegistry(`${temp.path}/registry`);
  worker = await startFakeOpencode({ reply: (text) => (text === 'run' ? undefined : `re: ${text}`) });
  way = await startFaultProxy(worker.url);
  await registry.add({ name: 'worker', port: way.port, cwd: worker.directory });
  // A call that waits gives up after a second; a task does not.
  const env = { SEND_TIMEOUT_MS: '1000' };
  registryArgs = ['--registry-dir', registry.path, '--health-timeout-ms', '15000'];
  server = await startMcpChild({ args: registryArgs, env });
});
afterEach(async () => {
  await server.close();
  await way.close();
  await worker.close();
  await temp.close();
});

async function begin(name: string, args: Readonly<Record<string, unknown>>): Promise<string> {
  const params = { name, arguments: args, task: { ttl: 120_000 } };
  const { task } = await server.client.request({ method: 'tools/call', params }, CreateTaskResultSchema);
  expect(task).toMatchObject({ status: 'working', ttl: 120_000 });
  return task.taskId;
}

const said = (): (string | undefined)[] => worker.state.prompts.map(({ body }) => body.parts?.[0]?.text);

const statusOf = async (taskId: string): Promise<string> =>
  (await server.client.request({ method: 'tasks/get', params: { taskId } }, GetTaskResultSchema)).status;

describe('send and wait as tasks', () => {
  test('say so in tools/list, as the only ones', async () => {
    const { tools } = await server.client.listTools();
    const offered = tools.filter(({ execution }) => execution?.taskSupport === 'optional').map(({ name }) => name);
    expect(offered).toEqual(['send', 'wait']);
  });

  test('outlast the call that began them, and give the same result as a call', async () => {
    const taskId = await begin('send', { instance: 'worker', message: 'run' });
    await until('the turn to run', () => worker.state.statuses.size === 1);
    const [sessionId = ''] = worker.state.statuses.keys();
    expect(await statusOf(taskId)).toBe('working');
    const fetching = server.client.request({ method: 'tasks/result', params: { taskId } }, CallToolResultSchema);
    worker.state.finish(sessionId, 'at last');
    const result = await fetching;
    expect(result.structuredContent).toMatchObject({ outcome: 'completed', text: 'at last' });
    expect(await statusOf(taskId)).toBe('completed');
  });

  test('fail with the error that a call would have had', async () => {
    const taskId = await begin('send', { instance: 'nobody', message: 'x' });
    const result = await server.client.request({ method: 'tasks/result', params: { taskId } }, CallToolResultSchema);
    expect(result.isError).toBe(true);
    expect(await statusOf(taskId)).toBe('failed');
  });

  test('cancelled, they stop following; the agent goes on', async () => {
    const taskId = await begin('send', { instance: 'worker', message: 'run' });
    await until('the turn to run', () => worker.state.statuses.size === 1);
    await server.client.request({ method: 'tasks/cancel', params: { taskId } }, CancelTaskResultSchema);
    expect(await statusOf(taskId)).toBe('cancelled');
    await until('the streams to be let go', () => worker.openStreams === 0);
    expect(worker.state.statuses.size).toBe(1);
  });

  test('cancelled behind another message of their session, they send nothing', async () => {
    const { id: session_id } = worker.addSession();
    const prompt = { path: /prompt_async$/ };
    way.rule(prompt, { kind: 'hold', gate: 'prompt' }, 1);
    const first = await begin('send', { instance: 'worker', session_id, message: 'first' });
    await way.waitForRequest(prompt);
    const looked = way.count({ path: '/session' });
    const taskId = await begin('send', { instance: 'worker', session_id, message: 'second' });
    await way.waitForRequest({ path: '/session' }, { nth: looked + 1 });
    await server.client.request({ method: 'tasks/cancel', params: { taskId } }, CancelTaskResultSchema);
    way.release('prompt');
    for (const id of [first, await begin('send', { instance: 'worker', session_id, message: 'third' })])
      await server.client.request({ method: 'tasks/result', params: { taskId: id } }, CallToolResultSchema);
    expect(said()).toEqual(['first', 'third']);
  });

  test('whose request is cancelled before their client knows them, they send nothing', async () => {
    const { id: session_id } = worker.addSession();
    await using raw = startRawServer({ args: registryArgs });
    const calling = (id: number, name: string, args: object, more = {}): object => ({
      jsonrpc: '2.0',
      id,
      method: 'tools/call',
      params: { name, arguments: { instance: 'worker', ...args }, ...more },
    });
    const run = { session_id, message: 'run' };
    const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } };
    raw.write(...HANDSHAKE, calling(1, 'send', run, { task: { ttl: 120_000 } }), cancel);
    // What takes as many requests to the instance as a send that is not cancelled.
    for (const id of [2, 3]) {
      raw.write(calling(id, 'get_status', {}));
      await raw.answerTo(id);
    }
    raw.write(calling(4, 'send', { session_id, message: 'hello' }));
    expect((await raw.answerTo(4)).result?.['structuredContent']).toMatchObject({ outcome: 'completed' });
    expect(said()).toEqual(['hello']);
  });

  test('another tool is called as ever, whatever is asked', async () => {
    const params = { name: 'instances', arguments: {}, task: { ttl: 60_000 } };
    await expect(server.client.request({ method: 'tools/call', params }, CallToolResultSchema)).rejects.toThrow(/task/);
  });
});
