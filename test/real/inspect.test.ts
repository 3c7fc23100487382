import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { beforeAll, expect, test } from 'vitest';

import { isSkipped, missingProgram } from '../rig/needed.ts';
import { createRealSession } from '../rig/opencode/real-session.ts';
import { until } from '../rig/wait.ts';
import { type Data, onEachOpencode, useWorker } from './stage.ts';

const LONG = Array.from({ length: 500 }, (_, index) => `line ${index + 1}`).join('\n');

onEachOpencode('inspecting', (binary) => {
  const worker = useWorker({ binary, permission: { bash: 'allow' } });
  const { data, refusal } = worker;
  beforeAll(async () => {
    await fill(worker.opencode.directory);
    // A cold instance on a busy machine takes longer than a call may.
    await worker.opencode.json('GET', '/file?path=');
    // From here on the client checks each result against its schema.
    await worker.server.client.listTools();
  });

  /** Starts a turn that stops half way at the gate `name`; `script` may run it in a sub-agent. */
  async function begin(session_id: string, gate: string, script = ''): Promise<void> {
    await data('send_message', { session_id, message: `${script}gate-mid ${gate}: half |done`, async: true });
    await worker.stage.model.waitForGate(gate);
  }

  async function session(title: string, ...messages: string[]): Promise<string> {
    const session_id = await worker.newSession(title);
    for (const message of messages) await data('send_message', { session_id, message });
    return session_id;
  }

  const texts = async (session_id: unknown): Promise<unknown[]> =>
    ((await data('read', { session_id }))['messages'] as { text: string }[]).map(({ text }) => text);

  test('list_files lists folders and files, marks ignored ones, and accepts a folder', async () => {
    const { directory } = worker.opencode;
    const top = await data('list_files');
    expect(top).toMatchObject({ directory, path: '', ignored: ['ignored.txt'] });
    expect(top['entries']).toEqual(expect.arrayContaining(['src/', 'README.md', '.hidden', 'ignored.txt']));
    expect(await data('list_files', { path: 'src/' })).toMatchObject({ entries: ['deep/', 'a.txt'], total: 2 });
    const absolute = { path: join(directory, 'src/deep') };
    expect(await data('list_files', absolute)).toMatchObject({ path: 'src/deep', entries: ['b.ts'] });
  });

  test('read_file reads a text page by page, an empty file and a link inside the directory, and reports only the type of a binary file', async () => {
    const pages: unknown[] = [];
    let line: unknown = 1;
    while (line !== undefined && pages.length < 9) {
      const page = await data('read_file', { path: 'long.txt', line });
      expect(page).toMatchObject({ line, lines: 500 });
      pages.push(page['text']);
      line = page['next_line'];
    }
    expect(pages.join('\n')).toBe(LONG);
    for (const [path, content] of [
      ['picture.png', { binary: 'image/png, 10 bytes; not text, so not shown' }],
      ['empty.txt', { lines: 0, text: '' }],
      ['inside.txt', { text: 'alpha\nneedle here' }],
    ] as const)
      expect(await data('read_file', { path })).toMatchObject(content);
  });

  test.each([
    ['read_file', { path: 'src/nothing.txt' }, /has no file "src\/nothing.txt".*list_files/],
    ['read_file', { path: 'src' }, /cannot read "src": it is a folder/],
    ['read_file', { path: 'latin.txt' }, /not UTF-8/],
    ['read_file', { path: 'src/a.txt', line: 3 }, /line 3 is past the end: the file has 2 lines/],
    ['list_files', { path: 'nowhere' }, /cannot list "nowhere": no such folder/],
    ['read_file', { path: '../outside.txt' }, /leads out of/],
    // Only opencode, on the other machine, can see where a link leads.
    ['read_file', { path: 'outside-link.txt' }, /a link that leads out of/],
    ['read_file', { path: 'outside-folder/inner.txt' }, /a link that leads out of/],
    ['list_files', { path: 'outside-folder' }, /a link that leads out of/],
  ])('%s of %j fails with the reason, and returns none of the file', async (tool, args, reason) => {
    const text = await refusal(tool, args);
    expect(text).toMatch(reason);
    expect(text).not.toContain('secret');
  });

  test('opencode itself refuses paths that lead out of the directory', async () => {
    const outside = join(dirname(worker.opencode.directory), 'outside.txt');
    for (const path of ['../outside.txt', outside, 'outside-link.txt']) {
      const response = await worker.opencode.request('GET', `/file/content?path=${encodeURIComponent(path)}`);
      expect(response.status).toBe(500);
      expect(await response.text()).not.toContain('secret');
    }
  });

  test('search finds files by name', async () => {
    const { matches } = await data('search', { query: 'b.ts', names: true });
    expect(matches).toContainEqual({ path: 'src/deep/b.ts' });
  });

  const withRipgrep = test.skipIf(isSkipped(missingProgram('rg')));
  withRipgrep('search finds lines by expression, the first 10, and nothing that is ignored or outside', async () => {
    expect(await data('search', { query: 'needle h.re' })).toEqual({
      instance: 'worker',
      directory: worker.opencode.directory,
      matches: [{ path: 'src/a.txt', line: 2, text: 'needle here' }],
      more: false,
    });
    expect(await data('search', { query: '(?i)NEEDLE H' })).toMatchObject({ matches: [{ path: 'src/a.txt' }] });
    expect(await data('search', { query: '^line' })).toMatchObject({ more: true, matches: { length: 10 } });
    for (const query of ['unseen needle', 'secret'])
      expect(await data('search', { query })).toMatchObject({ matches: [] });
    expect(await refusal('search', { query: '(' })).toMatch(/not a valid ripgrep regular expression.*names: true/);
  });

  test('get_diff shows a whole session, one turn, or one file, and notes a running turn', async () => {
    const session_id = await worker.newSession('changes');
    expect(await data('get_diff', { session_id })).toMatchObject({ files: [], total: 0, patch: '' });
    const messages: unknown[] = [];
    for (const command of ['printf "one\\n" > made.txt; printf "more\\n" >> README.md', 'printf "two\\n" >> made.txt'])
      messages.push((await data('send_message', { session_id, message: `bash: ${command}` }))['message_id']);
    const whole = await until('both turns to be summed up', async () => {
      const diff = await data('get_diff', { session_id });
      return (diff['messages'] as unknown[] | undefined)?.length === 2 && diff;
    });
    expect(whole).toMatchObject({
      total: 2,
      messages,
      files: [
        { file: 'README.md', status: 'modified', additions: 1, deletions: 0 },
        { file: 'made.txt', status: 'added', additions: 2, deletions: 0 },
      ],
      patch: expect.stringMatching(/\+more[^]*\+one[^]*\+two/) as string,
    });
    expect(await data('get_diff', { session_id, message_id: messages[1] })).toMatchObject({
      files: [{ file: 'made.txt', status: 'modified', additions: 1, deletions: 0 }],
      patch: expect.stringMatching(/^--- made.txt[^]*\+two$/) as string,
    });
    const ofReadme = { total: 1, messages: messages.slice(0, 1) };
    expect(await data('get_diff', { session_id, path: 'README.md' })).toMatchObject(ofReadme);
    const unknown = { session_id, message_id: 'msg_000000000000AAAAAAAAAAAAAA' };
    expect(await refusal('get_diff', unknown)).toMatch(/has no message/);
    await begin(session_id, 'diff');
    expect(await data('get_diff', { session_id })).toMatchObject({
      total: 2,
      note: expect.stringContaining('running turn') as string,
    });
    worker.stage.model.release('diff');
  });

  test('fork_session copies all messages or those before a given message, and of a running session only the completed turns', async () => {
    const session_id = await session('to fork', 'echo: first', 'echo: second');
    const all = ['echo: first', 'first', 'echo: second', 'second'];
    const forked = async (args: Data = {}): Promise<unknown[]> => {
      const { id } = (await data('fork_session', { session_id, ...args }))['session'] as { readonly id: string };
      expect(id).not.toBe(session_id);
      return await texts(id);
    };
    const { messages } = (await data('read', { session_id })) as { readonly messages: readonly { id: string }[] };
    expect(await forked()).toEqual(all);
    expect(await forked({ message_id: messages[2]?.id })).toEqual(all.slice(0, 2));
    // opencode would copy everything.
    const unknown = { session_id, message_id: 'msg_000000000000AAAAAAAAAAAAAA' };
    expect(await refusal('fork_session', unknown)).toMatch(/nothing was forked/);
    await begin(session_id, 'fork');
    expect(await forked()).toEqual(all);
    worker.stage.model.release('fork');
  });

  test('rename_session renames an idle session and a running session, whose turn continues', async () => {
    const session_id = await worker.newSession('old name');
    const renamed = { session: { id: session_id, title: 'new name' } };
    expect(await data('rename_session', { session_id, title: ' new\nname ' })).toMatchObject(renamed);
    await begin(session_id, 'rename');
    expect(await data('rename_session', { session_id, title: 'while it runs' })).toMatchObject({
      session: { state: 'busy' },
    });
    worker.stage.model.release('rename');
    await expect.poll(() => texts(session_id), { timeout: 30_000 }).toContain('half done');
    expect(await data('list_sessions', { search: 'while it runs' })).toMatchObject({ sessions: [{ id: session_id }] });
  });

  test('delete_session deletes an idle session, and refuses a session that runs or whose sub-agent runs', async () => {
    const idle = await session('to delete', 'echo: hello');
    const deleted = { session: { id: idle }, deleted: true };
    expect(await data('delete_session', { session_id: idle })).toMatchObject(deleted);
    expect(await refusal('read', { session_id: idle })).toMatch(/No session/);

    const parent = await worker.newSession('runs');
    await begin(parent, 'delete', 'task: ');
    expect(await refusal('delete_session', { session_id: parent })).toMatch(
      /is running; nothing was deleted. Call abort_session first/,
    );
    worker.stage.model.release('delete');
    await until('the turn to end', async () => ((await data('get_status'))['sessions'] as unknown[]).length === 0);
    expect((await texts(parent)).join()).toContain('half done');
    expect(await data('delete_session', { session_id: parent })).toMatchObject({ deleted: true });
  });

  test('opencode keeps running a deleted session until it is aborted, which is why delete_session refuses running sessions', async () => {
    const running = await createRealSession(worker.opencode, 'deleted under way');
    await running.prompt('hang ghost');
    await worker.stage.model.waitForGate('ghost');
    await worker.opencode.json('DELETE', `/session/${running.id}`);
    expect(await running.status()).toMatchObject({ type: 'busy' });
    await running.abort();
    await until('the abort to end it', async () => (await running.status()) === undefined);
  });
});

async function fill(directory: string): Promise<void> {
  const outside = dirname(directory);
  await mkdir(join(directory, 'src/deep'), { recursive: true });
  await mkdir(join(outside, 'outside'));
  const files: Readonly<Record<string, string | Buffer>> = {
    'src/a.txt': 'alpha\nneedle here\n',
    'src/deep/b.ts': 'export {};\n',
    'long.txt': `${LONG}\n`,
    'empty.txt': '',
    '.hidden': 'hidden\n',
    '.gitignore': 'ignored.txt\n',
    'ignored.txt': 'unseen needle\n',
    'picture.png': Buffer.from('89504e470d0a1a0a0000', 'hex'),
    'latin.txt': Buffer.from('caf\u00e9\n', 'latin1'),
    '../outside.txt': 'secret\n',
    '../outside/inner.txt': 'secret\n',
  };
  for (const [path, content] of Object.entries(files)) await writeFile(join(directory, path), content);
  await symlink('src/a.txt', join(directory, 'inside.txt'));
  await symlink(join(outside, 'outside.txt'), join(directory, 'outside-link.txt'));
  await symlink(join(outside, 'outside'), join(directory, 'outside-folder'));
}
