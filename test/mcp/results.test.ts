import { afterAll, describe, expect, test } from 'vitest';

import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { startMcpChild } from '../rig/programs/mcp-child.ts';
import { until } from '../rig/wait.ts';
import { openWorker } from './worker.ts';

type Data = Readonly<Record<string, unknown>>;

const LONG = 'A long answer. '.repeat(600);

const { registry, worker, args, ...scene } = await openWorker({
  // `long` gets a long answer, `say …` an echo; any other turn runs until it is ended.
  reply: (text) => (text === 'long' ? LONG : text.startsWith('say ') ? text.slice(4) : undefined),
});
const locked = await startFakeOpencode({ password: 'secret' });
const outdated = await startFakeOpencode({ version: '1.2.3' });
await registry.add({ name: 'locked', port: locked.port });
await registry.add({ name: 'outdated', port: outdated.port });
await registry.writeRaw('broken.json', '{"name":');
const server = await startMcpChild({ args });
const impatient = await startMcpChild({ args, env: { SEND_TIMEOUT_MS: '1000' } });
const children = [server, impatient];
// From here on, the SDK's client validates each result against the listed schema.
await Promise.all(children.map(({ client }) => client.listTools()));
// The first call loads the operations, for which a second may be too short.
await Promise.all(children.map((child) => child.call('instances')));

afterAll(async () => {
  await Promise.all(children.map((child) => child.close()));
  await Promise.all([locked.close(), outdated.close()]);
  await scene.close();
});

/** Calls as a client does and checks the result against the listed schema, the full one, and the text. */
async function call(name: string, args: Data = {}, child = server, maxBytes = Number.POSITIVE_INFINITY): Promise<Data> {
  const result = await child.client.callTool({ name, arguments: args });
  const [item] = result.content as readonly { readonly text?: string }[];
  const text = item?.text ?? '';
  expect(result.isError, text).not.toBe(true);
  expect(Buffer.byteLength(JSON.stringify(result)), name).toBeLessThan(maxBytes);
  const data = result.structuredContent as Data;
  // The schema strips unknown keys.
  expect(TOOLS.find((tool) => tool.name === name)?.output.parse(data)).toEqual(data);
  const missing = leaves(data).filter((value) => !has(text, value));
  expect(missing, `missing in the text of ${name}: ${text}`).toEqual([]);
  return data;
}

/** Like `call`, and checks the size of the whole result. */
const sized = (name: string, args: Data): Promise<Data> => call(name, args, server, 8_192);

/** Fields that the text words differently: times as ages, cuts by the next call, aborts as a sentence. */
const WORDED_OTHERWISE = new Set(['updated', 'created', 'last_seen', 'cut', 'more', 'total', 'aborted']);

function leaves(value: unknown, key = ''): string[] {
  if (WORDED_OTHERWISE.has(key) || value === undefined || value === 'complete') return [];
  if (Array.isArray(value)) return value.flatMap((one) => leaves(one, key));
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([name, one]) => leaves(one, name));
  }
  return [typeof value === 'string' ? value : JSON.stringify(value)];
}

/** A line is quoted if it could be taken for our own text. */
function has(text: string, value: string): boolean {
  return text.includes(value) || text.includes(JSON.stringify(value));
}

async function newSession(title: string): Promise<string> {
  return ((await call('create_session', { instance: 'worker', title }))['session'] as { id: string }).id;
}

describe('a result fits its schemas, and its text has the same content', () => {
  test.each(['instances', 'list_instances', 'refresh_instances'])('%s: every state, notes, a page', async (name) => {
    worker.addSession({ title: 'Known to all' });
    expect(await call(name)).toMatchObject({
      total: 3,
      instances: [
        { name: 'locked', state: 'locked', reason: expect.stringContaining('password') },
        { name: 'outdated', state: 'unsupported', version: '1.2.3' },
        { name: 'worker', state: 'idle', version: '1.18.33', directory: worker.directory, sources: ['local-relay'] },
      ],
      notes: [expect.stringContaining('broken.json')],
    });
    expect(await call(name, { limit: 1, offset: 1 })).toMatchObject({
      total: 3,
      next_offset: 2,
      instances: [{ name: 'outdated' }],
    });
  });

  test('instances: sessions, waiting requests, and an offline instance', async () => {
    const session_id = await newSession('Waits');
    await call('send_message', { instance: 'worker', session_id, message: 'run', async: true });
    worker.addPermission({ sessionID: session_id });
    const lost = await startFakeOpencode();
    await registry.add({ name: 'lost', port: lost.port });
    await call('refresh_instances');
    await lost.close();
    expect(await call('instances')).toMatchObject({
      instances: [
        {
          name: 'worker',
          state: 'waiting',
          waiting: [expect.stringMatching(/^permission per_\w+: «bash "ls"»$/)],
          session: { id: expect.any(String), title: expect.any(String) },
        },
        { name: 'locked' },
        {
          name: 'lost',
          state: 'offline',
          reason: expect.stringContaining('ECONNREFUSED'),
          last_seen: expect.any(String),
        },
        { name: 'outdated' },
      ],
    });
    await registry.remove('lost');
    worker.state.permissions.clear();
    await call('abort_session', { instance: 'worker', session_id });
  });

  test('send and send_message: completed, long, running, started, waiting, aborted', async () => {
    const session_id = await newSession('Sent to');
    const to = { instance: 'worker', session_id };
    expect(await call('send', { ...to, message: 'say hello' })).toMatchObject({ outcome: 'completed', text: 'hello' });
    expect(await call('send', { ...to, message: 'long' })).toMatchObject({
      outcome: 'completed',
      cut: { total: LONG.length },
    });
    const running = await call('send', { ...to, message: 'run' }, impatient);
    expect(running).toMatchObject({ outcome: 'running', message_id: expect.stringMatching(/^msg_/) });
    expect(running['next']).toContain(
      `read with instance worker, session_id ${session_id} and message_id ${String(running['message_id'])}`,
    );
    expect(await call('send', { ...to, abort: true })).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await call('send', { ...to, abort: true })).toMatchObject({ aborted: false, outcome: 'idle' });
    expect(await call('send_message', { ...to, message: 'run', async: true })).toMatchObject({ outcome: 'running' });
    expect(await call('send', { ...to, message: 'say again', abort: true })).toMatchObject({
      aborted: true,
      outcome: 'completed',
    });

    const waiting = call('send_message', { ...to, message: 'ask' });
    await until('the turn to run', () => worker.state.statuses.has(session_id));
    worker.addPermission({ sessionID: session_id });
    expect(await waiting).toMatchObject({ outcome: 'waiting', waiting: [expect.stringContaining('«bash "ls"»')] });
    worker.state.permissions.clear();
    const latest = { instance: 'worker', session_id: '' };
    expect(await call('abort_session', latest)).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await call('abort_session', to)).toMatchObject({ aborted: false, outcome: 'idle' });
  });

  test('read and get_session: messages of every kind, a page, one message, a waiting request', async () => {
    const session_id = await newSession('Read from');
    const to = { instance: 'worker', session_id };
    await call('send', { ...to, message: 'say hello' });
    await call('send', { ...to, message: 'long' });
    await call('send_message', { ...to, message: 'run', async: true });
    await call('abort_session', to);
    const messages = worker.state.messages.get(session_id) ?? [];
    const [, answer] = messages;
    const bash = {
      id: 'prt_tool',
      sessionID: session_id,
      messageID: answer?.info.id ?? '',
      type: 'tool',
      tool: 'bash',
      state: { status: 'completed', title: 'ls' },
    };
    if (answer !== undefined) messages[1] = { ...answer, parts: [bash, ...answer.parts] };
    await call('send_message', { ...to, message: 'ask', async: true });
    worker.addQuestion({ sessionID: session_id });
    for (const tool of ['read', 'get_session']) {
      const read = await call(tool, { ...to, message_limit: 6 });
      expect(read).toMatchObject({
        session: { id: session_id, state: 'waiting' },
        messages: [
          { role: 'user', text: 'long' },
          { state: 'complete', cut: { total: LONG.length } },
          { role: 'user', text: 'run' },
          { state: 'aborted', error: 'MessageAbortedError: Aborted' },
          { role: 'user', text: 'ask' },
          { state: 'streaming' },
        ],
        waiting: [expect.stringContaining('«Go on? Yes | No»')],
        before: expect.any(String),
      });
      expect(await call(tool, { ...to, before: read['before'] })).toMatchObject({
        messages: [{ text: 'say hello' }, { text: 'hello', tools: ['bash ls (completed)'] }],
      });
    }
    const [, , long] = messages;
    const message_id = long?.info.id;
    expect(await call('read', { ...to, message_id })).toMatchObject({
      messages: [{ id: message_id, role: 'answer to', cut: { total: LONG.length } }],
    });
    expect(await call('read', { ...to, message_id, offset: LONG.length - 5 })).toMatchObject({
      messages: [{ text: LONG.slice(-5) }],
    });
    worker.state.questions.clear();
    await call('abort_session', to);
  });

  test('a retrying and an interrupted session', async () => {
    const session_id = await newSession('In trouble');
    const to = { instance: 'worker', session_id };
    await call('send_message', { ...to, message: 'run', async: true });
    worker.state.statuses.set(session_id, {
      type: 'retry',
      attempt: 3,
      message: 'Overloaded',
      next: Date.now() + 60_000,
    });
    const retrying = { id: session_id, state: 'retrying', reason: 'attempt 3: opencode says "Overloaded"' };
    expect(await call('read', to)).toMatchObject({ session: retrying });
    expect(await call('list_sessions', { instance: 'worker' })).toMatchObject({
      sessions: expect.arrayContaining([expect.objectContaining(retrying)]),
    });
    expect(await call('get_status', { instance: 'worker' })).toMatchObject({ state: 'retrying', sessions: [retrying] });
    worker.state.statuses.delete(session_id);
    expect(await call('read', to)).toMatchObject({
      session: { state: 'interrupted', reason: expect.stringContaining('restarted') },
    });
  });

  test('fork_session, rename_session and delete_session', async () => {
    const session_id = await newSession('As a whole');
    const to = { instance: 'worker', session_id };
    await call('send', { ...to, message: 'say hello' });
    const { session } = (await call('fork_session', to)) as { session: { id: string; title: string } };
    expect(session).toMatchObject({ title: 'As a whole (fork #1)', state: 'idle' });
    expect(await call('rename_session', { ...to, title: 'Renamed' })).toMatchObject({
      session: { id: session_id, title: 'Renamed' },
    });
    expect(await call('delete_session', { instance: 'worker', session_id: session.id })).toEqual({
      instance: 'worker',
      session: { id: session.id, title: session.title },
      deleted: true,
    });
  });

  test('list_files, read_file and search: pages, ignored and binary files, nothing found; each in 8 KB', async () => {
    const { files } = worker.state;
    for (let index = 0; index < 300; index++) files.set(`a-file-of-this-folder-${index}.txt`, `needle ${index}`);
    files
      .set('ignored.log', 'x')
      .set('src/long.txt', LONG.replaceAll('. ', '.\n'))
      .set('image.bin', '\0\0')
      .set('empty', '');
    const at = { instance: 'worker' };
    const list = await sized('list_files', at);
    expect(list).toMatchObject({
      directory: worker.directory,
      path: '',
      total: 304,
      next_offset: expect.any(Number),
    });
    expect(await sized('list_files', { ...at, offset: list['next_offset'] })).toMatchObject({ total: 304 });
    expect(await sized('list_files', { ...at, offset: 300 })).toMatchObject({ ignored: ['ignored.log'] });
    expect(await sized('list_files', { ...at, path: 'src' })).toMatchObject({ path: 'src', entries: ['long.txt'] });
    expect(await sized('read_file', { ...at, path: 'src/long.txt' })).toMatchObject({
      line: 1,
      next_line: expect.any(Number),
    });
    expect(await sized('read_file', { ...at, path: 'empty' })).toMatchObject({ lines: 0 });
    expect(await sized('read_file', { ...at, path: 'image.bin' })).toMatchObject({
      binary: expect.stringContaining('2 bytes'),
    });
    expect(await sized('search', { ...at, query: 'needle 1' })).toMatchObject({ more: true });
    expect(await sized('search', { ...at, query: 'nothing like it' })).toMatchObject({ matches: [] });
    expect(await sized('search', { ...at, query: 'folder', names: true })).toMatchObject({ more: true });
    files.clear();
  });

  test('get_diff: none, whole, one turn, cut; in 8 KB', async () => {
    const session_id = await newSession('Changed');
    const to = { instance: 'worker', session_id };
    expect(await sized('get_diff', to)).toMatchObject({ files: [], total: 0 });
    await call('send', { ...to, message: 'say hello' });
    const messages = worker.state.messages.get(session_id) ?? [];
    const [user] = messages;
    const diffs = Array.from({ length: 60 }, (_, index) => ({
      file: `src/folder/a-file-${index}.ts`,
      patch: `--- a\n+++ b\n@@ -1 +1 @@\n-"old ${index}"\n+"new ${index}"\n`,
      additions: 1,
      deletions: 1,
      status: 'modified',
    }));
    if (user !== undefined) messages[0] = { ...user, info: { ...user.info, summary: { diffs } } };
    await call('send_message', { ...to, message: 'run', async: true });
    const whole = await sized('get_diff', to);
    expect(whole).toMatchObject({ total: 60, messages: [user?.info.id], note: expect.any(String), cut: {} });
    expect(await sized('get_diff', { ...to, message_id: user?.info.id, path: 'src/folder/a-file-7.ts' })).toMatchObject(
      {
        message_id: user?.info.id,
        files: [{ file: 'src/folder/a-file-7.ts', status: 'modified', additions: 1, deletions: 1 }],
        patch: '--- a\n+++ b\n@@ -1 +1 @@\n-"old 7"\n+"new 7"',
      },
    );
    await call('abort_session', to);
  });

  test('list_sessions and get_status: an empty list, many, a sub-agent, idle and offline', async () => {
    const parent = await newSession('Has a sub-agent');
    const child = worker.addSession({ title: 'The sub-agent', parentID: parent });
    expect(await call('get_session', { instance: 'worker', session_id: child.id })).toMatchObject({
      session: { parent },
    });
    expect(await call('list_sessions', { instance: 'worker', search: 'nothing like it' })).toMatchObject({
      sessions: [],
      more: false,
    });
    for (let index = 0; index < 31; index++) worker.addSession({ title: `One of many ${index}` });
    expect(await call('list_sessions', { instance: 'worker', search: 'one of many' })).toMatchObject({ more: true });
    expect(await call('get_status', { instance: 'worker' })).toMatchObject({
      state: 'idle',
      sessions: [],
      waiting: [],
    });
    expect(await call('get_status', { instance: 'locked' })).toMatchObject({
      state: 'locked',
      reason: expect.any(String),
    });
  });
});
