import { readdir } from 'node:fs/promises';

import { afterAll, describe, expect, test } from 'vitest';

import { startFakeOpencode } from '../../rig/fake/fake-opencode.ts';
import { openRegistry } from '../../rig/registry.ts';
import { until, within } from '../../rig/wait.ts';
import { HANDSHAKE } from '../raw-server.ts';
import { openWorker } from '../worker.ts';
import { type Data, enveloped, ModernClient, TASKS } from './modern-client.ts';

const NAMESPACE = 'io.modelcontextprotocol/';
const SUBSCRIPTION = `${NAMESPACE}subscriptionId`;
const LOG_LEVEL = `${NAMESPACE}logLevel`;

const { temp, registry, worker, args, ...scene } = await openWorker();
const client = new ModernClient({ args });

afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await scene.close();
});

/** A client with its own server. */
const startClient = (): ModernClient => new ModernClient({ args });

const send = (sessionId: string, message: string): Data => ({
  name: 'send',
  arguments: { instance: 'worker', session_id: sessionId, message },
});

test('a server that a client only probes contacts no instance, creates no folder, and ends with its input', async () => {
  await using probe = startClient();
  const before = worker.count('GET /global/health');
  await probe.ask('server/discover');
  const id = probe.write('subscriptions/listen', { notifications: { resourcesListChanged: true } });
  await until('the listener to be acknowledged', () => probe.notifications.length === 1);
  await probe.ask('server/discover');
  await probe.ask('prompts/list');
  await probe.ask('resources/templates/list');
  // Listing the tools starts discovery, here in a server that starts later and has another instance.
  await using seen = await startFakeOpencode({ directory: '/home/user/seen' });
  const second = await openRegistry(`${temp.path}/second`);
  await second.add({ name: 'seen', port: seen.port, cwd: seen.directory });
  await using later = new ModernClient({ args: ['--registry-dir', second.path] });
  await later.ask('tools/list');
  await until('the discovery of the second server', () => seen.count('GET /global/health') > 0);
  expect(worker.count('GET /global/health')).toBe(before);
  probe.server.endInput();
  expect(await within(probe.server.exited, 'the end')).toEqual({ code: 0, signal: null });
  expect(worker.count('GET /global/health')).toBe(before);
  expect(await readdir(probe.server.home)).toEqual(['tmp']);
  // The listener gets its result when the server ends.
  expect(JSON.parse(probe.server.stdout.at(-1) ?? '')).toEqual({
    jsonrpc: '2.0',
    id,
    result: { resultType: 'complete', _meta: { [SUBSCRIPTION]: id } },
  });
});

describe('the envelope', () => {
  const ENVELOPE = enveloped()['_meta'] as Data;
  const without = (key: string): Data =>
    Object.fromEntries(Object.entries(ENVELOPE).filter(([name]) => !name.endsWith(key)));
  test.each<readonly [string, Data, RegExp]>([
    ['no version', without('/protocolVersion'), /protocolVersion/],
    ['no capabilities', without('/clientCapabilities'), /clientCapabilities/],
    ['invalid capabilities', { ...ENVELOPE, [`${NAMESPACE}clientCapabilities`]: 'x' }, /lacks/],
    ['an unknown log level', { ...ENVELOPE, [LOG_LEVEL]: 'loud' }, /level/],
  ])('%s is refused', async (_, _meta, message) => {
    const id = client.nextId();
    client.server.write({ jsonrpc: '2.0', id, method: 'tools/list', params: { _meta } });
    const { error } = await client.server.answerTo(id);
    expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(message) });
  });

  test('the answer to an unsupported version lists the supported ones', async () => {
    const { error } = await client.answer('tools/list', {}, { version: '2025-11-25' });
    expect(error).toMatchObject({ code: -32_022, data: { supported: ['2026-07-28'], requested: '2025-11-25' } });
  });

  test("other invalid values are the client's error, and long ones are not repeated in the answer", async () => {
    const meta = { [`${NAMESPACE}clientInfo`]: { name: 'x', version: { toString: 1 } } };
    const odd = await client.answer('prompts/get', { name: 'x' }, { meta });
    expect(odd.error?.code).toBe(-32_602);
    const { error } = await client.answer('tools/list', {}, { version: 'v'.repeat(1_000_000) });
    expect(JSON.stringify(error).length).toBeLessThan(1_000);
    const long = { name: 'brief_all', arguments: { ['v'.repeat(1_000_000)]: 5 } };
    expect(JSON.stringify(await client.answer('prompts/get', long)).length).toBeLessThan(1_000);
  });

  test('clientInfo is optional', async () => {
    const id = client.nextId();
    client.server.write({ jsonrpc: '2.0', id, method: 'tools/list', params: { _meta: without('/clientInfo') } });
    expect((await client.server.answerTo(id)).result).toHaveProperty('tools');
  });

  test.each(['ping', 'resources/subscribe', 'initialize', 'toString'])(
    'the method %s does not exist in this protocol version',
    async (method) => {
      const { error } = await client.answer(method, { uri: 'opencode://worker' });
      expect(error?.code).toBe(-32_601);
    },
  );
});

describe('results', () => {
  test.each([
    ['server/discover', {}, 3_600_000, 'public'],
    ['tools/list', {}, 3_600_000, 'public'],
    ['prompts/list', {}, 3_600_000, 'public'],
    ['resources/templates/list', {}, 3_600_000, 'public'],
    ['resources/list', {}, 1_000, 'private'],
    ['resources/read', { uri: 'opencode://worker' }, 1_000, 'private'],
  ] as const)('%s gives the lifetime and cache scope of its result', async (method, params, ttlMs, cacheScope) => {
    expect(await client.ask(method, params)).toMatchObject({ resultType: 'complete', ttlMs, cacheScope });
  });

  test('a call sends progress under its token, and a failed call has a result', async () => {
    const { id } = worker.addSession();
    const meta = { progressToken: 'a token' };
    const running = client.write('tools/call', send(id, 'run'), { meta });
    await until('the turn', () => worker.state.statuses.has(id));
    worker.state.say(id, 'half ');
    await until('progress', () => client.notifications.some(({ method }) => method === 'notifications/progress'));
    worker.state.finish(id, 'and half');
    const { result } = await client.server.answerTo(running);
    expect(result).toMatchObject({ resultType: 'complete', structuredContent: { text: 'half and half' } });
    expect(client.notifications.at(-1)?.params).toMatchObject({ progressToken: 'a token' });
    const failed = await client.call('read', { instance: 'nobody' });
    expect(failed).toMatchObject({ resultType: 'complete', isError: true });
    const unknown = await client.answer('tools/call', { name: 'nothing' });
    expect(unknown.error).toMatchObject({ code: -32_602, message: expect.stringContaining('there are: instances') });
    expect((await client.answer('resources/read', { uri: 'opencode://nobody' })).error?.code).toBe(-32_602);
  });

  test('a cancelled call stops following, and gets no answer', async () => {
    const { id } = worker.addSession();
    const running = client.write('tools/call', send(id, 'run'));
    await until('the turn to be followed', () => worker.state.statuses.has(id) && worker.openStreams === 1);
    client.cancel(running);
    await until('the stream to end', () => worker.openStreams === 0);
    await client.ask('server/discover');
    expect(client.server.stdout.some((line) => line.includes(`"id":${running},`))).toBe(false);
    worker.state.finish(id, 'over');
  });
});

describe('the log', () => {
  const logs = (ownClient: ModernClient): readonly Data[] =>
    ownClient.notifications.filter(({ method }) => method === 'notifications/message').map(({ params }) => params);

  test('is sent only during a request that sets a log level, and only from that level up', async () => {
    await using ownClient = startClient();
    await ownClient.call('refresh_instances', {});
    expect(logs(ownClient)).toEqual([]);
    await ownClient.call('refresh_instances', {}, { meta: { [LOG_LEVEL]: 'error' } });
    expect(logs(ownClient)).toEqual([]);
    const loseInstance = async (name: string, meta: Data = {}): Promise<void> => {
      const gone = await startFakeOpencode({ directory: `/home/user/${name}` });
      await registry.add({ name, port: gone.port, cwd: gone.directory });
      await ownClient.call('refresh_instances', {});
      await gone.close();
      await ownClient.call('refresh_instances', {}, { meta });
      await registry.remove(name);
    };
    await loseInstance('first', { [LOG_LEVEL]: 'debug' });
    const received = logs(ownClient).length;
    expect(received).toBeGreaterThan(0);
    await loseInstance('second');
    expect(logs(ownClient)).toHaveLength(received);
  });
});

describe('listening', () => {
  test('reports the subscribed changes, under its id, until it is cancelled', async () => {
    await using ownClient = startClient();
    const id = ownClient.write('subscriptions/listen', {
      notifications: {
        resourcesListChanged: true,
        toolsListChanged: true,
        resourceSubscriptions: ['opencode://worker', 'file:///x'],
      },
    });
    await until('its acknowledgement', () => ownClient.notifications.length > 0);
    const _meta = { [SUBSCRIPTION]: id };
    expect(ownClient.notifications[0]).toMatchObject({
      method: 'notifications/subscriptions/acknowledged',
      params: { _meta, notifications: { resourcesListChanged: true, resourceSubscriptions: ['opencode://worker'] } },
    });
    expect(JSON.stringify(ownClient.notifications[0])).not.toMatch(/tools|file:/);
    const has = (name: string): boolean =>
      ownClient.notifications.some(
        ({ method, params }) =>
          method === `notifications/resources/${name}` && 'uri' in params === (name === 'updated'),
      );
    await ownClient.call('instances', {});
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    await registry.add({ name: 'other', port: other.port, cwd: other.directory });
    await ownClient.call('refresh_instances', {});
    await until('the change of the list', () => has('list_changed'));
    const { id: session } = worker.addSession();
    worker.state.begin(session, 'run');
    await ownClient.call('instances', {});
    await until('the change of the instance', () => has('updated'));
    for (const { params } of ownClient.notifications) expect(params).toMatchObject({ _meta });
    ownClient.cancel(id);
    // The server reads the cancellation before the next call; earlier notifications may still arrive.
    await ownClient.call('instances', {});
    const before = ownClient.notifications.length;
    worker.state.finish(session, 'over');
    await registry.remove('other');
    await ownClient.call('instances', {});
    await ownClient.call('refresh_instances', {});
    expect(ownClient.notifications).toHaveLength(before);
    expect(ownClient.server.stdout.some((line) => line.includes(`"id":${id},`))).toBe(false);
  });

  test('is refused for too many listeners, until one is cancelled', async () => {
    await using ownClient = startClient();
    const listen = (): number => ownClient.write('subscriptions/listen', { notifications: {} });
    const ids = Array.from({ length: 100 }, listen);
    expect((await ownClient.server.answerTo(listen())).error?.code).toBe(-32_602);
    ownClient.cancel(ids[0] ?? 0);
    await ownClient.ask('server/discover');
    const received = ownClient.notifications.length;
    listen();
    await until('its acknowledgement', () => ownClient.notifications.length === received + 1);
  });

  test('to tasks needs the tasks extension', async () => {
    const notifications = { taskIds: ['x'] };
    const { error } = await client.answer('subscriptions/listen', { notifications });
    expect(error?.code).toBe(-32_021);
    const id = client.write('subscriptions/listen', { notifications }, { capabilities: TASKS });
    await until('its acknowledgement', () =>
      client.notifications.some(({ params }) => (params['_meta'] as Data | undefined)?.[SUBSCRIPTION] === id),
    );
  });
});

describe('beside the older protocol version', () => {
  test('before initialize, a bare request or an invalid id gets an error or a log line; ping is answered', async () => {
    await using ownClient = startClient();
    for (const [id, method] of ['tools/list', 'server/discover', 'tasks/get'].entries()) {
      ownClient.server.write({ jsonrpc: '2.0', id, method, params: {} });
      expect((await ownClient.server.answerTo(id)).error).toMatchObject({
        code: -32_602,
        message: expect.stringMatching(/initialize first/),
      });
    }
    for (const id of ['null', 'true', '1e400'])
      ownClient.server.write(
        `{"jsonrpc":"2.0","id":${id},"method":"tools/list","params":${JSON.stringify(enveloped())}}\n`,
      );
    ownClient.server.write({ jsonrpc: '2.0', id: 9, method: 'ping' });
    expect((await ownClient.server.answerTo(9)).result).toEqual({});
    expect(ownClient.server.stdout).toHaveLength(4);
    await until('a log line for each', () => ownClient.server.stderr.split('MCP: ').length === 4);
  });

  test('both versions work on one connection, each by its own rules; unexpected responses are ignored', async () => {
    await using ownClient = startClient();
    const discover = ownClient.write('server/discover');
    ownClient.server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    const tools = ownClient.write('tools/list');
    const [old, modern] = [await ownClient.server.answerTo(1), await ownClient.server.answerTo(tools)];
    expect(Object.keys(old.result ?? {})).toEqual(['tools']);
    expect(modern.result).toMatchObject({ resultType: 'complete', tools: old.result?.['tools'] });
    expect((await ownClient.server.answerTo(discover)).result).toHaveProperty('supportedVersions');
    const { result } = await ownClient.server.answerTo(0);
    expect(result).toMatchObject({ protocolVersion: '2025-06-18' });
    expect(JSON.stringify(result)).not.toContain('tasks');

    const deep = `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`;
    ownClient.server.write(
      { jsonrpc: '2.0', id: 5, result: { action: 'accept', content: { secret: 'hunter2' } } },
      `{"jsonrpc":"2.0","id":6,"result":${deep}}\n`,
      { jsonrpc: '2.0', id: 7, method: 'ping' },
    );
    expect((await ownClient.server.answerTo(7)).result).toEqual({});
    await until('a log line for each', () => ownClient.server.stderr.split('MCP: ').length === 3);
    expect(ownClient.server.stderr).not.toMatch(/hunter2|"a"/);
  });
});
