import { execFile } from 'node:child_process';
import { mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { createProject } from '../rig/opencode/opencode-sandbox.ts';
import { tempDir } from '../rig/temp.ts';
import { dataOf, type Data, useWorker } from './stage.ts';

const run = promisify(execFile);
const temp = tempDir('directories');
afterAll(() => temp.close());
const worker = useWorker();
const { data } = worker;
const TREES = 2;
/** Worktrees of the project, and another project: one agent waits in each. */
const waiting: { readonly directory: string; readonly session: string }[] = [];

beforeAll(async () => {
  const { opencode } = worker;
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
});

function inDirectory(route: string, directory: string): string {
  return `${route}?directory=${encodeURIComponent(directory)}`;
}

async function rows(): Promise<readonly Data[]> {
  return dataOf(await worker.server.call('instances', { limit: 100 }))['instances'] as readonly Data[];
}

interface Waiting {
  readonly name: string;
  readonly directory: string;
  readonly session: { readonly id: string };
  readonly waiting: readonly string[];
}

/** The rows of the agents that wait, once all do. */
async function waitingRows(): Promise<readonly Waiting[]> {
  let found: readonly Data[] = [];
  await expect
    .poll(async () => (found = (await rows()).filter(({ state }) => state === 'waiting')).length, { timeout: 150_000 })
    .toBe(waiting.length);
  return found as unknown as readonly Waiting[];
}

test('one opencode is listed once for each directory in which an agent waits, and as idle in its own', async () => {
  const found = await waitingRows();
  expect(found.map(({ directory, session }) => ({ directory, session: session.id }))).toEqual(
    expect.arrayContaining(waiting),
  );
  const names = [...Array.from({ length: TREES }, (_, index) => `worker-tree-${index}`), 'worker-other'];
  expect(found.map(({ name }) => name).toSorted()).toEqual(names.toSorted());
  expect(await rows()).toContainEqual(expect.objectContaining({ name: 'worker', state: 'idle' }));
  for (const { name: instance, session } of found) {
    expect(await data('get_status', { instance })).toMatchObject({ state: 'waiting' });
    const sessions = [{ id: session.id, state: 'waiting' }];
    expect(await data('list_sessions', { instance })).toMatchObject({ sessions });
  }
  expect((await data('get_status'))['elsewhere']).toHaveLength(waiting.length);
  // Those of its project.
  const { sessions } = await data('list_sessions');
  expect((sessions as Data[]).map(({ state }) => state)).toEqual(Array(TREES).fill('waiting'));
});

test('a request is answered under the name of its directory or of the server, and the name stays valid', async () => {
  const found = await waitingRows();
  for (const [index, row] of found.entries()) {
    const request_id = /per_\w+/.exec(row.waiting[0] ?? '')?.[0];
    const instance = index % 2 === 0 ? 'worker' : row.name;
    expect(await data('respond', { instance, request_id, reply: 'once' })).toMatchObject({
      outcome: 'completed',
      session: { id: row.session.id },
    });
  }
  for (const { name: instance, session } of found)
    expect(await data('send', { instance, message: `echo: in ${instance}` })).toMatchObject({
      text: `in ${instance}`,
      session: { id: session.id },
    });
});

test("nothing is loaded from a directory that was not used recently, nor from another server's own", async () => {
  const { stage, opencode, server } = worker;
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
  // Of the same home; its clock is behind, so what it makes was last used twenty minutes ago.
  const other = await stage.opencode({ home: opencode.home, directory: own, fakeClockOffset: -20 * 60 });
  for (const directory of [own, old]) await other.json('POST', inDirectory('/session', await realpath(directory)), {});
  const now = await stage.opencode({ home: opencode.home, directory: own });
  await stage.register('second', now);
  await expect
    .poll(async () => (await rows()).some(({ name, state }) => name === 'second' && state === 'idle'))
    .toBe(true);
  await now.json('POST', '/session', {});
  for (const tool of ['refresh_instances', 'instances', 'list_instances']) await server.call(tool);
  for (const tool of ['get_status', 'list_sessions', 'read'])
    for (const instance of ['worker', 'second']) await server.call(tool, { instance });
  const loaded = async (): Promise<string[]> => (await readFile(marks, 'utf8')).trim().split('\n').toSorted();
  const byOthers = [`${own} ${other.pid}`, `${old} ${other.pid}`, `${own} ${now.pid}`].toSorted();
  expect([...new Set(await loaded())]).toEqual(byOthers);
  // A request that names the directory does load it.
  await opencode.request('GET', inDirectory('/session/status', await realpath(old)));
  await expect.poll(loaded).toContain(`${old} ${opencode.pid}`);
});
