import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { type HttpListener, listenHttp } from '../../rig/http-listener.ts';
import { openRegistry, type Registry } from '../../rig/registry.ts';
import { runShell, shellEnv } from '../../rig/programs/shell-command.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';

const HTML = '<html><title>OpenCode</title></html>';

let home: TempDir;
let registry: Registry;
const servers: HttpListener[] = [];
/** Requests that are no GET. */
const posts: string[] = [];

/** Answers these paths with JSON, and all others with a web page. */
async function serve(name: string, answers: Readonly<Record<string, unknown>>): Promise<void> {
  const server = await listenHttp(({ method, url = '' }, response) => {
    if (method !== 'GET') posts.push(`${method} ${url}`);
    const body = answers[url.split('?', 1)[0] ?? ''];
    response.writeHead(200, { 'content-type': body === undefined ? 'text/html' : 'application/json' });
    response.end(body === undefined ? HTML : JSON.stringify(body));
  });
  servers.push(server);
  await registry.add({ name, port: server.port });
}

async function run(...args: readonly string[]): Promise<{ readonly out: string; readonly code: number | null }> {
  const shell = runShell(args, shellEnv(home.path, registry.path));
  const code = await shell.ended;
  return { out: shell.stdout() + shell.stderr(), code };
}

beforeAll(async () => {
  home = tempDir('versions');
  registry = await openRegistry(`${home.path}/registry`);
  const directory = '/home/user/project';
  await Promise.all([
    serve('early', { '/api/status': { version: '2.0.3' } }),
    serve('newer', { '/api/info': { version: '2.4.0', pid: 7 } }),
    serve('current', {
      '/global/health': { healthy: true, version: '1.19.3' },
      '/path': { directory, worktree: directory },
      '/session/status': {},
      '/experimental/session': [],
    }),
  ]);
});
afterAll(async () => {
  await Promise.all(servers.map((server) => server.close()));
  await home?.close();
});

const UNSUPPORTED = [
  ['early', 'this is OpenCode 2.0.3, which is not supported: it has no /api/info; update OpenCode 2'],
  ['newer', 'this is OpenCode 2.4.0, which is not supported: 2.0 to 2.3 are known; update opencode-mcp'],
] as const;

test('list shows early and newer versions of OpenCode 2 as unsupported, and OpenCode 1.19 as any other', async () => {
  const { out } = await run('list', '--json');
  const { instances } = JSON.parse(out) as { readonly instances: readonly object[] };
  for (const [name, reason] of UNSUPPORTED)
    expect(instances).toContainEqual(expect.objectContaining({ name, state: 'unsupported', reason }));
  expect(instances).toContainEqual(expect.objectContaining({ name: 'current', state: 'idle', version: '1.19.3' }));
});

test.each(UNSUPPORTED)('send to %s prints the reason and sends nothing', async (name, reason) => {
  const { out, code } = await run('send', name, 'hello');
  expect(out).toContain(reason);
  expect(code).not.toBe(0);
  expect(posts).toEqual([]);
});

test.each(UNSUPPORTED)('doctor %s prints the reason and what to do', async (name, reason) => {
  const { out } = await run('doctor', name);
  expect(out).toContain('unsupported');
  expect(out.replaceAll(/\s+/g, ' ')).toContain(reason);
});

test.each(['README.md', 'docs/opencode-2.md'])('%s says which versions of OpenCode 2 were tested', async (page) => {
  const text = await readFile(new URL(`../../../${page}`, import.meta.url), 'utf8');
  expect(text.replaceAll(/\s+/g, ' ')).toContain(
    'OpenCode 2.x: built to the contract of 2.1, tested on the 1.18.18 preview and on a fake; not run against a 2.x binary',
  );
});
