import { afterAll, describe, expect, test } from 'vitest';

import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { startMcpChild } from '../rig/programs/mcp-child.ts';
import { until } from '../rig/wait.ts';
import { openWorker } from './worker.ts';

type Data = Readonly<Record<string, unknown>>;

const LONG = 'A long answer. '.repeat(600);

const { registry, worker, args, ...scene } = await openWorker({
  // `long` gets a long answer, `say …` an echo; any other turn runs until the test ends it.
  reply: (text) => (text === 'long' ? LONG : text.startsWith('say ') ? text.slice(4) : undefined),
});
const locked = await startFakeOpencode({ password: 'secret' });
const outdated = await startFakeOpencode({ version: '1.2.3' });
await registry.add({ name: 'locked', port: locked.port });
await registry.add({ name: 'outdated', port: outdated.port });
await registry.writeRaw('broken.json', '{"name":');
const server = await startMcpChild({ args });
const shortTimeoutServer = await startMcpChild({ args, env: { SEND_TIMEOUT_MS: '1000' } });
const children = [server, shortTimeoutServer];
// From here on, the SDK's client validates each result against the listed schema.
await Promise.all(children.map(({ client }) => client.listTools()));
// The first call loads the operations, for which a second may be too short.
await Promise.all(children.map((child) => child.call('instances')));

afterAll(async () => {
  await Promise.all(children.map((child) => child.close()));
  await Promise.all([locked.close(), outdated.close()]);
  await scene.close();
});

/** Calls as a client does, and checks the result against the listed schema, the full schema and the text. */
async function call(name: string, args: Data = {}, child = server, maxBytes = Number.POSITIVE_INFINITY): Promise<Data> {
  const result = await child.client.callTool({ name, arguments: args });
  const [item] = result.content as readonly { readonly text?: string }[];
  const text = item?.text ?? '';
  expect(result.isError, text).not.toBe(true);
  expect(Buffer.byteLength(JSON.stringify(result)), name).toBeLessThan(maxBytes);
  const data = result.structuredContent as Data;
  // The schema strips unknown keys.
  expect(TOOLS.find((tool) => tool.name === name)?.output.parse(data)).toEqual(data);
  const missing = leafValues(data).filter((value) => !textContains(text, value));
  expect(missing, `missing in the text of ${name}: ${text}`).toEqual([]);
  return data;
}

/** Like `call`, and checks the size of the whole result. */
const callWithin8Kb = (name: string, args: Data): Promise<Data> => call(name, args, server, 8_192);

/** Fields that the text words differently: times as ages, cuts by the next call, aborts as a sentence. */
const WORDED_OTHERWISE = new Set(['updated', 'created', 'last_seen', 'cut', 'more', 'total', 'aborted']);

function leafValues(value: unknown, key = ''): string[] {
  if (WORDED_OTHERWISE.has(key) || value === undefined || value === 'complete') return [];
  if (Array.isArray(value)) return value.flatMap((one) => leafValues(one, key));
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([name, one]) => leafValues(one, name));
  }
  return [typeof value === 'string' ? value : JSON.stringify(value)];
}

/** The text quotes a value that could pass for our own text. */
function textContains(text: string, value: string): boolean {
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
    const target = { instance: 'worker', session_id };
    expect(await call('send', { ...target, message: 'say hello' })).toMatchObject({
      outcome: 'completed',
      text: 'hello',
    });
    expect(await call('send', { ...target, message: 'long' })).toMatchObject({
      outcome: 'completed',
      cut: { total: LONG.length },
    });
    const running = await call('send', { ...target, message: 'run' }, shortTimeoutServer);
    expect(running).toMatchObject({ outcome: 'running', message_id: expect.stringMatching(/^msg_/) });
    expect(running['next']).toContain(
      `read with instance worker, session_id ${session_id} and message_id ${String(running['message_id'])}`,
    );
    expect(await call('send', { ...target, abort: true })).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await call('send', { ...target, abort: true })).toMatchObject({ aborted: false, outcome: 'idle' });
    expect(await call('send_message', { ...target, message: 'run', async: true })).toMatchObject({
      outcome: 'running',
    });
    expect(await call('send', { ...target, message: 'say again', abort: true })).toMatchObject({
      aborted: true,
      outcome: 'completed',
    });

    const waiting = call('send_message', { ...target, message: 'ask' });
    await until('the turn to run', () => worker.state.statuses.has(session_id));
    worker.addPermission({ sessionID: session_id });
    expect(await waiting).toMatchObject({ outcome: 'waiting', waiting: [expect.stringContaining('«bash "ls"»')] });
    worker.state.permissions.clear();
    const latest = { instance: 'worker', session_id: '' };
    expect(await call('abort_session', latest)).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await call('abort_session', target)).toMatchObject({ aborted: false, outcome: 'idle' });
  });

  test('read and get_session: messages of every kind, a page, one message, a waiting request', async () => {
    const session_id = await newSession('Read from');
    const target = { instance: 'worker', session_id };
    await call('send', { ...target, message: 'say hello' });
    await call('send', { ...target, message: 'long' });
    await call('send_message', { ...target, message: 'run', async: true });
    await call('abort_session', target);
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
    await call('send_message', { ...target, message: 'ask', async: true });
    worker.addQuestion({ sessionID: session_id });
    for (const tool of ['read', 'get_session']) {
      const read = await call(tool, { ...target, message_limit: 6 });
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
      expect(await call(tool, { ...target, before: read['before'] })).toMatchObject({
        messages: [{ text: 'say hello' }, { text: 'hello', tools: ['bash ls (completed)'] }],
      });
    }
    const [, , long] = messages;
    const message_id = long?.info.id;
    expect(await call('read', { ...target, message_id })).toMatchObject({
      messages: [{ id: message_id, role: 'answer to', cut: { total: LONG.length } }],
    });
    expect(await call('read', { ...target, message_id, offset: LONG.length - 5 })).toMatchObject({
      messages: [{ text: LONG.slice(-5) }],
    });
    worker.state.questions.clear();
    await call('abort_session', target);
  });

  test('read, list_sessions and get_status: a retrying and an interrupted session', async () => {
    const session_id = await newSession('In trouble');
    const target = { instance: 'worker', session_id };
    await call('send_message', { ...target, message: 'run', async: true });
    worker.state.statuses.set(session_id, {
      type: 'retry',
      attempt: 3,
      message: 'Overloaded',
      next: Date.now() + 60_000,
    });
    const retrying = { id: session_id, state: 'retrying', reason: 'attempt 3: opencode says "Overloaded"' };
    expect(await call('read', target)).toMatchObject({ session: retrying });
    expect(await call('list_sessions', { instance: 'worker' })).toMatchObject({
      sessions: expect.arrayContaining([expect.objectContaining(retrying)]),
    });
    expect(await call('get_status', { instance: 'worker' })).toMatchObject({ state: 'retrying', sessions: [retrying] });
    worker.state.statuses.delete(session_id);
    expect(await call('read', target)).toMatchObject({
      session: { state: 'interrupted', reason: expect.stringContaining('restarted') },
    });
  });

  test('fork_session, rename_session and delete_session', async () => {
    const session_id = await newSession('As a whole');
    const target = { instance: 'worker', session_id };
    await call('send', { ...target, message: 'say hello' });
    const { session } = (await call('fork_session', target)) as { session: { id: string; title: string } };
    expect(session).toMatchObject({ title: 'As a whole (fork #1)', state: 'idle' });
    expect(await call('rename_session', { ...target, title: 'Renamed' })).toMatchObject({
      session: { id: session_id, title: 'Renamed' },
    });
    expect(await call('delete_session', { instance: 'worker', session_id: session.id })).toEqual({
      instance: 'worker',
      session: { id: session.id, title: session.title },
      deleted: true,
    });
  });

  test('list_files, read_file and search within 8 KB: pages, ignored and binary files, no match', async () => {
    const { files } = worker.state;
    for (let index = 0; index < 300; index++) files.set(`a-file-of-this-folder-${index}.txt`, `needle ${index}`);
    files
      .set('ignored.log', 'x')
      .set('src/long.txt', LONG.replaceAll('. ', '.\n'))
      .set('image.bin', '\0\0')
      .set('empty', '');
    const at = { instance: 'worker' };
    const list = await callWithin8Kb('list_files', at);
    expect(list).toMatchObject({
      directory: worker.directory,
      path: '',
      total: 304,
      next_offset: expect.any(Number),
    });
    expect(await callWithin8Kb('list_files', { ...at, offset: list['next_offset'] })).toMatchObject({ total: 304 });
    expect(await callWithin8Kb('list_files', { ...at, offset: 300 })).toMatchObject({ ignored: ['ignored.log'] });
    expect(await callWithin8Kb('list_files', { ...at, path: 'src' })).toMatchObject({
      path: 'src',
      entries: ['long.txt'],
    });
    expect(await callWithin8Kb('read_file', { ...at, path: 'src/long.txt' })).toMatchObject({
      line: 1,
      next_line: expect.any(Number),
    });
    expect(await callWithin8Kb('read_file', { ...at, path: 'empty' })).toMatchObject({ lines: 0 });
    expect(await callWithin8Kb('read_file', { ...at, path: 'image.bin' })).toMatchObject({
      binary: expect.stringContaining('2 bytes'),
    });
    expect(await callWithin8Kb('search', { ...at, query: 'needle 1' })).toMatchObject({ more: true });
    expect(await callWithin8Kb('search', { ...at, query: 'nothing like it' })).toMatchObject({ matches: [] });
    expect(await callWithin8Kb('search', { ...at, query: 'folder', names: true })).toMatchObject({ more: true });
    files.clear();
  });

  test('get_diff within 8 KB: no changes, all changes, one turn, a cut patch', async () => {
    const session_id = await newSession('Changed');
    const target = { instance: 'worker', session_id };
    expect(await callWithin8Kb('get_diff', target)).toMatchObject({ files: [], total: 0 });
    await call('send', { ...target, message: 'say hello' });
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
    await call('send_message', { ...target, message: 'run', async: true });
    const whole = await callWithin8Kb('get_diff', target);
    expect(whole).toMatchObject({ total: 60, messages: [user?.info.id], note: expect.any(String), cut: {} });
    expect(
      await callWithin8Kb('get_diff', { ...target, message_id: user?.info.id, path: 'src/folder/a-file-7.ts' }),
    ).toMatchObject({
      message_id: user?.info.id,
      files: [{ file: 'src/folder/a-file-7.ts', status: 'modified', additions: 1, deletions: 1 }],
      patch: '--- a\n+++ b\n@@ -1 +1 @@\n-"old 7"\n+"new 7"',
    });
    await call('abort_session', target);
  });

  test('list_sessions and get_status: an empty list, many sessions, a sub-agent, an idle and a locked instance', async () => {
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
