import { beforeEach, describe, expect, test } from 'vitest';

import { getDiff } from '../../src/operations/inspect/changes.ts';
import { listFiles, readFile } from '../../src/operations/inspect/files.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { search } from '../../src/operations/inspect/search.ts';
import { deleteSession, forkSession, renameSession } from '../../src/operations/sessions/session-changes.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';
import { userMessage } from '../rig/fake/fake-objects.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { until } from '../rig/wait.ts';
import { Stage } from './stage.ts';

let stage: Stage;
let runtime: Runtime;
let fake: FakeOpencode;

beforeEach(async () => {
  stage = new Stage();
  ({ fake } = await stage.add('worker', { reply: (text) => (text === 'run' ? undefined : text) }));
  runtime = testRuntime(stage.fleet);
  await stage.start();
  return stage.close;
});

const WORKER = { instance: 'worker' } as const;

const read = (path: string, more: { line?: number; max_chars?: number } = {}): ReturnType<typeof readFile> =>
  readFile(runtime, { ...WORKER, path, line: 1, max_chars: 3_000, ...more }, testCall());
const list = (path = '', offset = 0): ReturnType<typeof listFiles> =>
  listFiles(runtime, { ...WORKER, path, offset }, testCall());
const find = (query: string, names = false): ReturnType<typeof search> =>
  search(runtime, { ...WORKER, query, names }, testCall());
const diff = (more: object = {}): ReturnType<typeof getDiff> =>
  getDiff(runtime, { ...WORKER, offset: 0, ...more }, testCall());

describe('paths', () => {
  test.each([
    '..',
    '../x',
    'a/../../x',
    '/etc/passwd',
    '\\\\server\\share',
    'C:\\x',
    'a\\..\\..\\x',
    'a\0b',
    '/home/user/project-2/x',
  ])('%j is refused without a request', async (path) => {
    await expect(read(path)).rejects.toThrow(/leads out of "\/home\/user\/project"; give one inside/);
    await expect(list(path)).rejects.toThrow(/leads out of/);
    expect(fake.count('GET /file') + fake.count('GET /file/content')).toBe(0);
  });

  test('a path that is too long is refused', async () => {
    await expect(list('a/'.repeat(5_000))).rejects.toThrow(/longer than 4096/);
  });

  test.each(['src/a.txt', './src//a.txt', '/home/user/project/src/a.txt', 'src/./a.txt'])(
    '%j is read as src/a.txt',
    async (path) => {
      fake.state.files.set('src/a.txt', 'content');
      expect((await read(path)).data).toMatchObject({ path: 'src/a.txt', text: 'content' });
    },
  );
});

describe('files', () => {
  test('list_files returns a large folder in pages without gaps or repeats', async () => {
    for (let index = 0; index < 400; index++) fake.state.files.set(`file-${String(index).padStart(3, '0')}.txt`, 'x');
    const names: string[] = [];
    let offset: number | undefined = 0;
    for (let pages = 0; offset !== undefined && pages < 20; pages++) {
      const { data, text } = await list('', offset);
      expect(JSON.stringify({ data, text }).length).toBeLessThan(8_192);
      names.push(...data.entries);
      offset = data.next_offset;
    }
    expect(names).toEqual([...fake.state.files.keys()]);
  });

  test('read_file cuts a line that is too long, and keeps all line numbers', async () => {
    fake.state.files.set('min.js', `first\n${'x'.repeat(50_000)}\r\n\u2028last\u2029`);
    const { data } = await read('min.js', { max_chars: 20_000 });
    const lines = data.text?.split('\n') ?? [];
    expect([data.lines, lines.length, lines[1]?.length, lines[1]?.at(-1)]).toEqual([3, 3, 1_000, '…']);
  });

  test('read_file returns at least one line, however small max_chars is', async () => {
    fake.state.files.set('a.txt', 'one line\nanother');
    expect((await read('a.txt', { max_chars: 1 })).data).toMatchObject({ text: 'one line', next_line: 2 });
  });

  test('read_file rejects a missing file, which opencode returns as an empty file', async () => {
    fake.state.files.set('src/empty.txt', '');
    expect((await read('src/empty.txt')).data).toMatchObject({ lines: 0, text: '' });
    await expect(read('src/nothing.txt')).rejects.toThrow(/has no file "src\/nothing.txt"/);
    await expect(read('nowhere/nothing.txt')).rejects.toThrow(/has no file/);
  });

  test('read_file rejects a file over the response limit as too large', async () => {
    fake.override('GET /file/content', { kind: 'endless' });
    await expect(read('big.txt')).rejects.toThrow(/"big.txt" is too large/);
  });

  test("list_files with a session lists that session's directory", async () => {
    const session = fake.addSession({ directory: '/home/user/worktree' });
    fake.state.files.set('a.txt', 'x');
    const { data } = await listFiles(runtime, { ...WORKER, path: '', offset: 0, session_id: session.id }, testCall());
    expect(data.directory).toBe('/home/user/worktree');
  });
});

test("search reports whether there are more matches, and explains opencode's HTTP 500", async () => {
  fake.state.files.set('a.txt', 'hit\n'.repeat(30));
  const { data } = await find('hit');
  expect(data).toMatchObject({ more: true });
  expect(data.matches).toEqual(
    Array.from({ length: 10 }, (_, index) => ({ path: 'a.txt', line: index + 1, text: 'hit' })),
  );
  await expect(find('(')).rejects.toThrow(/regular expression.*ripgrep.*names: true/);
  await expect(find('  ')).rejects.toThrow(/query is empty/);
  for (let index = 0; index < 60; index++) fake.state.files.set(`src/some-${index}.ts`, 'x');
  const names = await find('some', true);
  expect([names.data.matches.length, names.data.more]).toEqual([40, true]);
  expect((await find('nothing like it')).data).toMatchObject({ matches: [], more: false });
});

describe('get_diff', () => {
  function turn(sessionID: string, ...diffs: readonly object[]): string {
    const message = userMessage(sessionID, 'do it');
    fake.state.messages.get(sessionID)?.push({ ...message, info: { ...message.info, summary: { diffs } } });
    return message.info.id;
  }
  const change = (file: string, patch = `+${file}`, more: object = {}): object => ({
    file,
    patch,
    additions: 1,
    deletions: 0,
    status: 'modified',
    ...more,
  });

  test('a long patch is returned in pages without gaps or repeats, and files that do not fit are counted', async () => {
    const { id } = fake.addSession();
    const line = '+0123456789\n';
    turn(id, ...Array.from({ length: 50 }, (_, index) => change(`src/file-${index}.ts`, line.repeat(30).trimEnd())));
    let patch = '';
    let offset: number | undefined = 0;
    for (let pages = 0; offset !== undefined && pages < 20; pages++) {
      const { data, text } = await diff({ offset });
      expect(JSON.stringify({ data, text }).length).toBeLessThan(8_192);
      expect([data.files.length, data.total]).toEqual([20, 50]);
      expect(text).toContain('and 30 more');
      patch += data.patch;
      offset = data.cut?.next_offset;
    }
    expect(patch).toBe(line.repeat(30 * 50).trimEnd());
  });

  test('long names leave room for the patch', async () => {
    const { id } = fake.addSession();
    turn(
      id,
      ...Array.from({ length: 50 }, (_, index) => change(`${'deep/'.repeat(40)}file-${index}.ts`, '+x\n'.repeat(99))),
    );
    const { data, text } = await diff();
    expect(JSON.stringify({ data, text }).length).toBeLessThan(8_192);
    expect([data.total, data.files.length > 0]).toEqual([50, true]);
  });

  test('a file that several turns changed is one row', async () => {
    const { id } = fake.addSession();
    turn(
      id,
      change('a', '', { status: 'added' }),
      change('b', '', { status: 'added' }),
      change('c', '', { status: 'deleted' }),
    );
    turn(id, change('a'), change('b', '', { status: 'deleted' }), change('c', '', { status: 'added' }));
    expect((await diff()).data.files).toEqual([
      { file: 'a', status: 'added', additions: 2, deletions: 0 },
      { file: 'b', status: 'added and deleted', additions: 2, deletions: 0 },
      { file: 'c', status: 'modified', additions: 2, deletions: 0 },
    ]);
  });

  test('a long session is read page by page, up to 500 messages, which the result notes', async () => {
    const { id } = fake.addSession();
    const first = turn(id, change('first'));
    for (let index = 0; index < 60; index++) turn(id);
    expect((await diff()).data).toMatchObject({ total: 1, messages: [first] });
    for (let index = 0; index < 500; index++) turn(id);
    const { data } = await diff();
    expect(data).toMatchObject({ total: 0, note: 'only its newest 500 messages were read' });
  });

  test("an assistant message's id selects its turn, and a folder selects all files in it", async () => {
    const { id } = fake.addSession();
    const message_id = turn(id, change('src/a'), change('srcs'));
    const [user] = fake.state.messages.get(id) ?? [];
    const answer = {
      info: { ...user!.info, id: 'msg_answer0000', role: 'assistant' as const, parentID: message_id, summary: true },
      parts: [],
    };
    fake.state.messages.get(id)?.push(answer);
    expect((await diff({ message_id: 'msg_answer0000' })).data).toMatchObject({
      total: 2,
      message_id: 'msg_answer0000',
    });
    expect((await diff({ path: './src/' })).data.files.map(({ file }) => file)).toEqual(['src/a']);
  });

  test('an instance without a session is an error', async () => {
    await expect(diff()).rejects.toThrow(/no session/);
  });
});

describe('rename_session, delete_session and fork_session', () => {
  const rename = (session_id: string, title: string): ReturnType<typeof renameSession> =>
    renameSession(runtime, { ...WORKER, session_id, title }, testCall());
  const remove = (session_id: string): ReturnType<typeof deleteSession> =>
    deleteSession(runtime, { ...WORKER, session_id }, testCall());

  test('a session is not renamed with an empty title, or during its first turn, which would overwrite the title', async () => {
    const { id } = fake.addSession();
    fake.state.begin(id, 'run', {});
    await expect(rename(id, 'mine')).rejects.toThrow(/opencode names it.*Nothing was renamed/);
    expect(fake.count('PATCH /session/:id')).toBe(0);
    fake.state.finish(id, 'done');
    await expect(rename(id, ' \n ')).rejects.toThrow(/title is empty/);
    expect((await rename(id, 'mine')).data.session.title).toBe('mine');
  });

  test.each(['the session itself', 'a sub-agent', "a sub-agent's sub-agent"])(
    'a session is not deleted while %s runs',
    async (runner) => {
      const top = fake.addSession({ title: 'top' });
      const child = fake.addSession({ title: 'child', parentID: top.id });
      const grandchild = fake.addSession({ title: 'grandchild', parentID: child.id });
      // Another running session does not matter.
      const other = fake.addSession({ title: 'other' });
      fake.state.begin(other.id, 'run', {});
      const running = runner === 'the session itself' ? top : runner === 'a sub-agent' ? child : grandchild;
      fake.state.begin(running.id, 'run', {});
      await expect(remove(top.id)).rejects.toThrow(/is running; nothing was deleted. Call abort_session first/);
      expect(fake.count('DELETE /session/:id')).toBe(0);
      fake.state.finish(running.id, 'done');
      await remove(top.id);
      expect([...fake.state.sessions.keys()]).toEqual([other.id]);
    },
  );

  test('a session that another process runs is not deleted, and the error names that process', async () => {
    const { id } = fake.addSession({ title: 'shared' });
    const { fake: other } = await stage.add('second');
    other.addSession({ id, title: 'shared' });
    other.state.begin(id, 'run', {});
    await stage.fleet.refresh();
    await expect(remove(id)).rejects.toThrow(
      /runs in second, which shares its sessions with worker; nothing was deleted/,
    );
    expect(fake.count('DELETE /session/:id')).toBe(0);
    other.state.finish(id, 'done');
    // An instance with other sessions.
    await stage.add('apart');
    await stage.fleet.refresh();
    await remove(id);
    expect(fake.count('DELETE /session/:id')).toBe(1);
  });

  test('a deletion waits for a send by this process, and is then refused because the session runs', async () => {
    const { id } = fake.addSession();
    const release = await runtime.lock.acquire(id, testCall());
    const removing = remove(id);
    await until('the session to be looked up', () => fake.count('GET /session') > 0);
    // A deletion that did not wait would happen in this time.
    for (let round = 0; round < 3; round++) await stage.fleet.survey();
    expect(fake.count('DELETE /session/:id')).toBe(0);
    fake.state.begin(id, 'run', {});
    release();
    await expect(removing).rejects.toThrow(/is running/);
  });

  test('a turn that began during the deletion is aborted', async () => {
    const { id } = fake.addSession();
    const removeSession = fake.state.removeSession.bind(fake.state);
    fake.state.removeSession = (id) => {
      fake.state.statuses.set(id, { type: 'busy' });
      return removeSession(id);
    };
    await remove(id);
    expect(fake.count('POST /session/:id/abort')).toBe(1);
    expect(fake.state.statuses.has(id)).toBe(false);
  });

  test('a fork leaves out an unanswered message, and is refused at an unknown message', async () => {
    const { id } = fake.addSession({ title: 'source' });
    fake.state.begin(id, 'first', {});
    fake.state.finish(id, 'done');
    const fork = async (message_id?: string): Promise<number> => {
      const { data } = await forkSession(runtime, { ...WORKER, session_id: id, message_id }, testCall());
      return fake.state.messages.get(data.session.id)?.length ?? 0;
    };
    expect(await fork()).toBe(2);
    fake.state.messages.get(id)?.push(userMessage(id, 'accepted a moment ago'));
    expect(await fork()).toBe(2);
    await expect(fork('msg_unknown00000')).rejects.toThrow(/no message "msg_unknown00000"; nothing was forked/);
    expect(fake.count('POST /session/:id/fork')).toBe(2);
  });
});
