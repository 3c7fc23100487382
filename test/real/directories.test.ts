import { execFile } from 'node:child_process';
import { mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { createProject } from '../rig/opencode-sandbox.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const run = promisify(execFile);
const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};
const TREES = 4;

let stage: Stage;
let temp: TempDir;
let opencode: Opencode;
let server: McpChild;
/** Worktrees of the project, and another project: one agent waits in each. */
const waiting: { readonly directory: string; readonly session: string }[] = [];

beforeAll(async () => {
  stage = await openStage();
  temp = tempDir('directories');
  opencode = await stage.opencode();
  await stage.register('laptop-app', opencode);
  const trees = Array.from({ length: TREES }, (_, index) => `${temp.path}/tree-${index}`);
  for (const tree of trees) await run('git', ['-C', opencode.directory, 'worktree', 'add', '-q', tree]);
  const other = `${temp.path}/other`;
  await createProject(other);
  for (const path of [...trees, other]) {
    const directory = await realpath(path);
    const made = await opencode.json<{ id: string }>('POST', inDirectory('/session', directory), { title: 'work' });
    waiting.push({ directory, session: made.id });
    const parts = [{ type: 'text', text: `bash: echo ${waiting.length}` }];
    await opencode.request('POST', `/session/${made.id}/prompt_async`, { parts });
  }
  server = await stage.server();
});
afterAll(async () => {
  await stage.close();
  await temp.close();
});

function inDirectory(route: string, directory: string): string {
  return `${route}?directory=${encodeURIComponent(directory)}`;
}

async function rows(): Promise<Record<string, unknown>[]> {
  const listed = data(await server.call('instances', { limit: 100 }));
  return listed['instances'] as Record<string, unknown>[];
}

/** The rows of the agents that wait, once all do. */
async function waitingRows(): Promise<Record<string, unknown>[]> {
  let found: Record<string, unknown>[] = [];
  await expect
    .poll(async () => (found = (await rows()).filter(({ state }) => state === 'waiting')).length, { timeout: 60_000 })
    .toBe(waiting.length);
  return found;
}

describe('one opencode with agents in several worktrees and in another project', () => {
  test('is as many instances, each with what it waits for; its own directory is idle', async () => {
    const found = await waitingRows();
    expect(found.map(({ directory }) => String(directory)).toSorted()).toEqual(
      waiting.map(({ directory }) => directory).toSorted(),
    );
    for (const { directory, session } of waiting) {
      const row = found.find((one) => one['directory'] === directory);
      expect(row).toMatchObject({ session: { id: session }, waiting: [expect.stringContaining('bash')] });
    }
    const names = [...Array.from({ length: TREES }, (_, index) => `laptop-app-tree-${index}`), 'laptop-app-other'];
    expect(found.map(({ name }) => String(name)).toSorted()).toEqual(names.toSorted());
    expect((await rows()).find(({ name }) => name === 'laptop-app')).toMatchObject({ state: 'idle' });
  });

  test('get_status and list_sessions tell each as waiting, by its own name and by the name of the server', async () => {
    for (const { name, session } of await waitingRows().then((found) =>
      found.map((row) => ({ name: String(row['name']), session: (row['session'] as { id: string }).id })),
    )) {
      expect(data(await server.call('get_status', { instance: name }))).toMatchObject({ state: 'waiting' });
      const { sessions } = data(await server.call('list_sessions', { instance: name })) as { sessions: object[] };
      expect(sessions).toEqual([expect.objectContaining({ id: session, state: 'waiting' })]);
    }
    expect(data(await server.call('get_status', { instance: 'laptop-app' }))['elsewhere']).toHaveLength(waiting.length);
    const { sessions } = data(await server.call('list_sessions', { instance: 'laptop-app' })) as { sessions: object[] };
    expect(sessions).toHaveLength(TREES);
    expect(sessions).toEqual(Array(TREES).fill(expect.objectContaining({ state: 'waiting' })));
  });

  test('is answered by exact id, by either name; the turn ends there, and its name stays callable', async () => {
    const found = await waitingRows();
    for (const [index, row] of found.entries()) {
      const id = /per_\w+/.exec(String((row['waiting'] as string[])[0]))?.[0];
      const instance = index % 2 === 0 ? 'laptop-app' : String(row['name']);
      const settled = await server.call('respond', { instance, request_id: id, reply: 'once' });
      expect(data(settled)).toMatchObject({
        outcome: 'completed',
        session: { id: (row['session'] as { id: string }).id },
      });
    }
    for (const { name, session } of found) {
      const sent = data(await server.call('send', { instance: name, message: `echo: in ${String(name)}` }));
      expect(sent).toMatchObject({
        outcome: 'completed',
        text: `in ${String(name)}`,
        session: { id: (session as { id: string }).id },
      });
    }
  });

  test('loads nothing of a directory that was not used lately, nor of one that is another server’s own', async () => {
    const [own, old] = [`${temp.path}/own`, `${temp.path}/old`];
    const marks = `${temp.path}/marks`;
    for (const directory of [own, old]) {
      await createProject(directory);
      await mkdir(`${directory}/.opencode/plugin`, { recursive: true });
      await writeFile(
        `${directory}/.opencode/plugin/canary.js`,
        `import { appendFileSync } from 'node:fs';\nappendFileSync(${JSON.stringify(marks)}, ${JSON.stringify(directory)} + ' ' + process.pid + '\\n');\nexport const Canary = async () => ({});\n`,
      );
    }
    // Of the same home, and its clock is behind: what it makes was last used twenty minutes ago.
    const other = await stage.opencode({ home: opencode.home, directory: own, fakeClockOffset: -20 * 60 });
    for (const directory of [own, old])
      await other.json('POST', inDirectory('/session', await realpath(directory)), {});
    const now = await stage.opencode({ home: opencode.home, directory: own });
    await stage.register('second', now);
    await expect
      .poll(async () => (await rows()).some(({ name, state }) => name === 'second' && state === 'idle'))
      .toBe(true);
    await now.json('POST', '/session', {});
    for (const tool of ['refresh_instances', 'instances', 'list_instances']) await server.call(tool);
    for (const tool of ['get_status', 'list_sessions', 'read'])
      for (const instance of ['laptop-app', 'second']) await server.call(tool, { instance });
    const loaded = async (): Promise<string[]> => (await readFile(marks, 'utf8')).trim().split('\n').toSorted();
    const theirs = [`${own} ${other.pid}`, `${old} ${other.pid}`, `${own} ${now.pid}`].toSorted();
    expect([...new Set(await loaded())]).toEqual(theirs);
    // The canary sings where it is asked about.
    await opencode.request('GET', inDirectory('/session/status', await realpath(old)));
    await expect.poll(loaded).toContain(`${old} ${opencode.pid}`);
  });
});
