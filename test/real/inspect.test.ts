import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { isSkipped, missingProgram } from '../rig/needed.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import { createRealSession } from '../rig/real-session.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

type Data = Readonly<Record<string, unknown>>;

const LONG = Array.from({ length: 500 }, (_, index) => `line ${index + 1}`).join('\n');

describe.each(OPENCODES)('$name', ({ binary }) => {
  describe.skipIf(isMissing(binary))('', () => {
    let stage: Stage;
    let opencode: Opencode;
    let server: McpChild;

    beforeAll(async () => {
      stage = await openStage();
      opencode = await stage.opencode({ binary, permission: { bash: 'allow' } });
      await stage.register('alpha', opencode);
      await fill(opencode.directory);
      // A cold instance on a busy machine takes longer than a call may.
      await opencode.json('GET', '/file?path=');
      server = await stage.server();
      await server.client.listTools();
    });
    afterAll(() => stage.close());

    async function call(name: string, args: Data = {}): Promise<Data> {
      const { result, text } = await server.call(name, { instance: 'alpha', ...args });
      expect(result.isError, text).not.toBe(true);
      return result.structuredContent as Data;
    }

    async function refusal(name: string, args: Data = {}): Promise<string> {
      const { result, text } = await server.call(name, { instance: 'alpha', ...args });
      expect(result.isError, text).toBe(true);
      return text;
    }

    describe('files', () => {
      test('list_files: folders and files, what is ignored, a folder below', async () => {
        const top = await call('list_files');
        expect(top).toMatchObject({ directory: opencode.directory, path: '', ignored: ['ignored.txt'] });
        expect(top['entries']).toEqual(expect.arrayContaining(['src/', 'README.md', '.hidden', 'ignored.txt']));
        expect(await call('list_files', { path: 'src/' })).toMatchObject({ entries: ['deep/', 'a.txt'], total: 2 });
        const absolute = { path: join(opencode.directory, 'src/deep') };
        expect(await call('list_files', absolute)).toMatchObject({ path: 'src/deep', entries: ['b.ts'] });
      });

      test('read_file: a text page by page, a binary by its kind, an empty one, one behind a link that stays inside', async () => {
        let text = '';
        let line: unknown = 1;
        for (let page = 0; page < 9 && line !== undefined; page++) {
          const data = await call('read_file', { path: 'long.txt', line });
          expect(data).toMatchObject({ line, lines: 500 });
          text += `${text === '' ? '' : '\n'}${String(data['text'])}`;
          line = data['next_line'];
        }
        expect(text).toBe(LONG);
        expect(await call('read_file', { path: 'long.txt', max_chars: 20_000 })).toMatchObject({ text: LONG });
        expect(await call('read_file', { path: 'picture.png' })).toMatchObject({
          binary: 'image/png, 10 bytes; not text, so not shown',
        });
        expect(await call('read_file', { path: 'empty.txt' })).toMatchObject({ lines: 0, text: '' });
        expect(await call('read_file', { path: 'inside.txt' })).toMatchObject({ text: 'alpha\nneedle here' });
      });

      test('what is not there, not readable or not inside is an error that says so, and nothing of it is shown', async () => {
        expect(await refusal('read_file', { path: 'src/nothing.txt' })).toMatch(
          /has no file "src\/nothing.txt".*list_files/,
        );
        expect(await refusal('read_file', { path: 'src' })).toMatch(/cannot read "src": it is a folder/);
        expect(await refusal('read_file', { path: 'latin.txt' })).toMatch(/not UTF-8/);
        expect(await refusal('list_files', { path: 'nowhere' })).toMatch(/cannot list "nowhere": no such folder/);
        expect(await refusal('read_file', { path: 'src/a.txt', line: 3 })).toMatch(
          /line 3 is past the end: the file has 2 lines/,
        );
        for (const path of ['../outside.txt', '/etc/hostname', 'src/../../outside.txt'])
          expect(await refusal('read_file', { path })).toMatch(/leads out of/);
        // What only the other machine can tell, its opencode does.
        for (const path of ['outside-link.txt', 'outside-folder/inner.txt']) {
          const text = await refusal('read_file', { path });
          expect(text).toMatch(/a link that leads out of/);
          expect(text).not.toContain('secret');
        }
        expect(await refusal('list_files', { path: 'outside-folder' })).toMatch(/a link that leads out of/);
      });

      test('opencode itself refuses what leads out of the directory: this program does not stand alone', async () => {
        for (const path of ['../outside.txt', join(dirname(opencode.directory), 'outside.txt'), 'outside-link.txt']) {
          const response = await opencode.request('GET', `/file/content?path=${encodeURIComponent(path)}`);
          expect(response.status).toBe(500);
          expect(await response.text()).not.toContain('secret');
        }
      });

      test('search finds files by name', async () => {
        expect(await call('search', { query: 'b.ts', names: true })).toMatchObject({
          matches: expect.arrayContaining([{ path: 'src/deep/b.ts' }]) as unknown,
        });
      });

      describe.skipIf(isSkipped(missingProgram('rg')))('', () => {
        test('search finds lines: by expression, the first 10, nothing that is ignored or outside', async () => {
          expect(await call('search', { query: 'needle h.re' })).toEqual({
            instance: 'alpha',
            directory: opencode.directory,
            matches: [{ path: 'src/a.txt', line: 2, text: 'needle here' }],
            more: false,
          });
          expect(await call('search', { query: '(?i)NEEDLE H' })).toMatchObject({ matches: [{ path: 'src/a.txt' }] });
          const many = await call('search', { query: '^line' });
          expect(many).toMatchObject({ more: true });
          expect(many['matches']).toHaveLength(10);
          for (const query of ['unseen needle', 'secret'])
            expect(await call('search', { query })).toMatchObject({ matches: [] });
          expect(await refusal('search', { query: '(' })).toMatch(
            /not a valid ripgrep regular expression.*names: true/,
          );
        });
      });
    });

    describe('changes', () => {
      test('get_diff: the whole session, one turn, one file; a running turn is told', async () => {
        await call('create_session', { title: 'changes' });
        const session_id = 'changes';
        expect(await call('get_diff', { session_id })).toMatchObject({ files: [], total: 0, patch: '' });
        const first = await call('send_message', {
          session_id,
          message: 'bash: printf "one\\n" > made.txt; printf "more\\n" >> README.md',
        });
        const second = await call('send_message', { session_id, message: 'bash: printf "two\\n" >> made.txt' });
        const messages = [first['message_id'], second['message_id']];
        const whole = await until('both turns to be summed up', async () => {
          const data = await call('get_diff', { session_id });
          return (data['messages'] as unknown[] | undefined)?.length === 2 && data;
        });
        expect(whole).toMatchObject({
          total: 2,
          messages,
          files: [
            { file: 'README.md', status: 'modified', additions: 1, deletions: 0 },
            { file: 'made.txt', status: 'added', additions: 2, deletions: 0 },
          ],
        });
        expect(whole['patch']).toMatch(/\+more[^]*\+one[^]*\+two/);
        const turn = await call('get_diff', { session_id, message_id: second['message_id'] });
        expect(turn).toMatchObject({ files: [{ file: 'made.txt', status: 'modified', additions: 1, deletions: 0 }] });
        expect(turn['patch']).toMatch(/^--- made.txt[^]*\+two$/);
        expect(await call('get_diff', { session_id, path: 'README.md' })).toMatchObject({
          total: 1,
          messages: messages.slice(0, 1),
        });
        expect(await refusal('get_diff', { session_id, message_id: 'msg_000000000000AAAAAAAAAAAAAA' })).toMatch(
          /has no message/,
        );

        await call('send_message', { session_id, message: 'gate-mid diff: half |done', async: true });
        await stage.model.waitForGate('diff');
        expect(await call('get_diff', { session_id })).toMatchObject({
          total: 2,
          note: expect.stringContaining('running turn') as string,
        });
        stage.model.release('diff');
      });
    });

    describe('sessions as a whole', () => {
      async function session(title: string, ...messages: string[]): Promise<string> {
        const { id } = (await call('create_session', { title }))['session'] as { id: string };
        for (const message of messages) await call('send_message', { session_id: id, message });
        return id;
      }
      const texts = async (session_id: string): Promise<unknown[]> =>
        ((await call('read', { session_id }))['messages'] as { text: string }[]).map(({ text }) => text);

      test('fork_session: all, before a message, and a running one without its unfinished turn', async () => {
        const session_id = await session('to fork', 'echo: first', 'echo: second');
        const { messages } = (await call('read', { session_id })) as { messages: { id: string }[] };
        const forked = async (args: Data = {}): Promise<unknown[]> => {
          const { id } = (await call('fork_session', { session_id, ...args }))['session'] as { id: string };
          expect(id).not.toBe(session_id);
          return await texts(id);
        };
        expect(await forked()).toEqual(['echo: first', 'first', 'echo: second', 'second']);
        expect(await forked({ message_id: messages[2]?.id })).toEqual(['echo: first', 'first']);
        // opencode would copy everything.
        expect(await refusal('fork_session', { session_id, message_id: 'msg_000000000000AAAAAAAAAAAAAA' })).toMatch(
          /nothing was forked/,
        );
        await call('send_message', { session_id, message: 'gate-mid fork: half |done', async: true });
        await stage.model.waitForGate('fork');
        expect(await forked()).toEqual(['echo: first', 'first', 'echo: second', 'second']);
        stage.model.release('fork');
      });

      test('rename_session: idle and running', async () => {
        const session_id = await session('old name');
        expect(await call('rename_session', { session_id, title: ' new\nname ' })).toMatchObject({
          session: { id: session_id, title: 'new name' },
        });
        await call('send_message', { session_id, message: 'gate-mid rename: half |done', async: true });
        await stage.model.waitForGate('rename');
        expect(await call('rename_session', { session_id, title: 'while it runs' })).toMatchObject({
          session: { state: 'busy' },
        });
        stage.model.release('rename');
        const { messages } = (await until('the turn to end', async () => {
          const read = await call('read', { session_id });
          return (read['session'] as { state: string }).state === 'idle' && read;
        })) as { messages: { text: string }[] };
        expect(messages.at(-1)?.text).toBe('half done');
        expect(await call('list_sessions', { search: 'while it runs' })).toMatchObject({
          sessions: [{ id: session_id }],
        });
      });

      test('delete_session: an idle one is gone; what runs, itself or a sub-agent, is refused and goes on', async () => {
        const idle = await session('to delete', 'echo: hello');
        expect(await call('delete_session', { session_id: idle })).toMatchObject({
          session: { id: idle },
          deleted: true,
        });
        expect(await refusal('read', { session_id: idle })).toMatch(/No session/);

        const parent = await session('runs');
        await call('send_message', { session_id: parent, message: 'task: gate-mid delete: half |done', async: true });
        await stage.model.waitForGate('delete');
        expect(await refusal('delete_session', { session_id: parent })).toMatch(
          /is running; nothing was deleted. Call abort_session first/,
        );
        stage.model.release('delete');
        await until('the turn to end', async () => ((await call('get_status'))['sessions'] as unknown[]).length === 0);
        expect((await texts(parent)).join()).toContain('half done');
        expect(await call('delete_session', { session_id: parent })).toMatchObject({ deleted: true });
      });

      test('the reason for that refusal: a session deleted while it runs goes on without a store until it is aborted', async () => {
        const running = await createRealSession(opencode, 'deleted under way');
        await running.prompt('hang ghost');
        await stage.model.waitForGate('ghost');
        await opencode.json('DELETE', `/session/${running.id}`);
        expect(await running.status()).toMatchObject({ type: 'busy' });
        await running.abort();
        await until('the abort to end it', async () => (await running.status()) === undefined);
      });
    });
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
