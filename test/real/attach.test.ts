import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ask, type Asked } from '../attach/instances.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { isMissing, PINNED_OPENCODE, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { startPreview } from '../rig/opencode/opencode-preview.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { type OpencodeSandbox, openSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { OPENCODE_MCP, runShell, shellEnv } from '../rig/programs/shell-command.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/programs/tmux.ts';
import { until, within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const PASSWORD = 'a password of the instance';
/** The TUI has drawn. */
const DRAWN = /ctrl\+p commands/;

let stage: Stage;
let opencode: Opencode;
let tunnel: FaultProxy;
let person: OpencodeSandbox;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  stage = await openStage();
  [opencode, person] = await Promise.all([stage.opencode({ password: PASSWORD }), openSandbox()]);
  tunnel = await startFaultProxy(opencode.url);
  await stage.register('worker', opencode, { id: 'worker-id', port: tunnel.port, password: PASSWORD });
  env = { ...person.env, ...shellEnv(person.home, stage.registry.path), OPENCODE_BIN: PINNED_OPENCODE };
});
afterAll(async () => {
  await stage.close();
  await tunnel[Symbol.asyncDispose]();
  await person.close();
});

async function terminal(): Promise<TmuxTerminal> {
  const opened = await openTmux(env, person.home);
  await opened.type(`om() { ${OPENCODE_MCP} "$@"; echo "code $?"; }; stty -g > before; clear; echo ready`, 'Enter');
  // Keys that are typed before the prompt would show twice.
  await opened.shows(/^ready\n\$/);
  return opened;
}

interface Running {
  readonly pid: number;
  /** As `ps` shows it to every user. */
  readonly args: string;
  readonly env: string;
}

/** Processes with this home. */
async function processes(home = person.home): Promise<readonly Running[]> {
  const found = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [args = '', environ = ''] = await Promise.all(
      ['cmdline', 'environ'].map((file) => readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '')),
    );
    if (environ.includes(`HOME=${home}\0`))
      found.push({ pid: Number(pid), args: args.replaceAll('\0', ' '), env: environ });
  }
  return found;
}

/** The process with this in its command line. */
function running(part: RegExp): Promise<Running> {
  return until(`${part} to run`, async () => (await processes()).find(({ args }) => part.test(args)));
}

const TUI = / attach http/;

test('attach opens the TUI with no password in any command line, continues through another tunnel, and restores the terminal', async (context) => {
  needTmux(context);
  const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'Seen from afar' });
  await using screen = await terminal();
  await screen.type('OPENCODE_MCP_LOG_LEVEL=debug om attach work "Seen from afar" 2> log', 'Enter');
  await screen.shows(DRAWN);
  const log = join(person.home, 'log');
  const logged = await readFile(log, 'utf8');
  expect(logged).toContain('endpoint answers');
  const tui = await running(TUI);
  expect(tui.args).toContain(`--session ${id}`);
  const secret = /OPENCODE_SERVER_PASSWORD=([^\0]*)/.exec(tui.env)?.[1] ?? '';
  expect(secret).toMatch(/^[\w-]{43}$/);
  const all = await processes();
  expect(all.filter(({ args }) => args.includes(PASSWORD) || args.includes(secret))).toEqual([]);
  expect(all.filter((one) => one.env.includes(PASSWORD))).toEqual([]);
  await screen.type('echo: from afar', 'Enter');
  // The first turn of a cold opencode.
  await until('the answer', () => stage.model.turns('echo: from afar') > 0, 100_000);
  const before = tunnel;
  tunnel = await startFaultProxy(opencode.url);
  await stage.register('worker', opencode, { id: 'worker-id', port: tunnel.port, password: PASSWORD });
  await before[Symbol.asyncDispose]();
  await tunnel.waitForRequest({ path: /event$/ });
  await screen.type('echo: over another tunnel', 'Enter');
  await screen.shows(/over another tunnel[^]*over another tunnel/);
  // The screen is opencode's: nothing is logged on it.
  expect(await readFile(log, 'utf8')).toBe(logged);
  process.kill(tui.pid, 'SIGKILL');
  // The screen from before it was opened.
  expect(await screen.shows(/code \d+/)).toMatch(/om attach work .*\n+code 137/);
  await screen.type('clear; stty -g | cmp - before && echo "as $((40+2)) before"', 'Enter');
  await screen.shows(/as 42 before/);
});

test('the TUI ends when opencode-mcp is killed', async (context) => {
  needTmux(context);
  await using screen = await terminal();
  await screen.type('om attach worker', 'Enter');
  await screen.shows(DRAWN);
  process.kill((await running(/opencode-mcp\.js attach/)).pid, 'SIGKILL');
  await until('the TUI to end', async () => !(await processes()).some(({ args }) => TUI.test(args)));
  // The shell may have printed its message while the TUI still drew.
  await screen.type('clear; echo "as $((40+2)) before"', 'Enter');
  await screen.shows(/as 42 before/);
});

/** In place of the terminal of OpenCode 2.x, which is not released: prints its arguments and the server's pid. */
const SECOND = `#!${process.execPath}
const [dir, flag, url, ...more] = process.argv.slice(2);
if (dir === '--version') console.log('opencode v2.1.2');
else {
  const authorization = 'Basic ' + Buffer.from('opencode:' + process.env.OPENCODE_PASSWORD).toString('base64');
  const get = (path) => fetch(url + path, { headers: { authorization } }).then((answer) => answer.json());
  get('/api/info').then(({ pid }) => {
    console.log('server', pid, flag, dir, ...more);
    process.exitCode = 7;
  });
}
`;

test('attach opens the terminal of OpenCode 2.x with --server; it explains a missing terminal and an unsuitable program', async (context) => {
  needTmux(context);
  const piped = runShell(['attach', 'worker'], env);
  expect(await within(piped.ended, 'its end')).toBe(2);
  expect(piped.stderr()).toContain('there is no terminal to open opencode in');
  const password = 'of the service';
  await using fake = await startFakeOpencode2({ password });
  const { id } = fake.addSession({ directory: '/home/ada/second' }).info;
  await stage.registry.add({ name: 'second', port: fake.port, id: 'second-id' }, { password });
  await writeFile(join(person.home, 'two'), SECOND, { mode: 0o755 });
  await using screen = await terminal();
  await screen.resize(250, 30);
  await screen.type(`OPENCODE_BIN=${join(person.home, 'two')} om attach worker`, 'Enter');
  await screen.shows(/is OpenCode 2 \(2\.1\.2\)[^]*set OPENCODE_BIN[^]*code 2/);
  await screen.type(`clear; OPENCODE_BIN=${join(person.home, 'two')} om attach second ${id}`, 'Enter');
  const shown = await screen.shows(/code 7/);
  expect(shown).toContain(`server ${fake.pid} --server /home/ada/second --session ${id}`);
});

test('open serves the page of the instance to one browser, until it is interrupted', async () => {
  const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'For the browser' });
  const run = runShell(['open', 'worker', 'For the browser', '--print'], env);
  await run.shows(/\n/);
  const url = run.stdout().trim();
  expect(url).toMatch(/^http:\/\/[0-9a-f]{20}\.localhost:\d+\/opencode-mcp\/enter\/[\w-]{43}$/);
  // Browsers resolve names below localhost themselves.
  const { host, port, pathname } = new URL(url);
  const get = (path: string, headers: Readonly<Record<string, string>> = {}): Promise<Asked> =>
    ask({ port: Number(port), path, headers: { host, ...headers } });
  const entered = await get(pathname);
  const cookie = entered.headers['set-cookie']?.[0]?.split(';', 1)[0] ?? '';
  const start = entered.headers.location ?? '';
  expect(start).toBe(`/${Buffer.from(opencode.directory).toString('base64url')}/session/${id}`);
  const [, script = ''] = /src="(\/assets\/[^"]+\.js)"/.exec((await get(start, { cookie })).text) ?? [];
  expect((await get(script, { cookie })).headers['content-type']).toMatch(/javascript/);
  const asked = await get('/path', { cookie, origin: `http://${host}` });
  expect(JSON.parse(asked.text)).toMatchObject({ directory: opencode.directory });
  expect((await get('/path')).status).toBe(403);
  run.kill('SIGINT');
  expect(await within(run.ended, 'its end')).toBe(0);
  await expect(get('/path')).rejects.toThrow('ECONNREFUSED');
});

describe.skipIf(isMissing(PREVIEW_OPENCODE))('the preview of OpenCode 2', () => {
  test("attach opens the preview's terminal on this user's service only, in the directory of the instance", async (context) => {
    needTmux(context);
    await using preview = await startPreview({ model: stage.model, registered: true });
    process.stdout.write(`${preview.describe()}\n`);
    await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
    const home: Readonly<Record<string, string>> = {
      ...preview.env,
      ...shellEnv(preview.home, join(preview.home, 'registry')),
      TRANSPORT: 'service',
    };
    await using screen = await openTmux(
      { ...home, PATH: `${dirname(PREVIEW_OPENCODE)}:${home['PATH']}` },
      preview.home,
    );
    await screen.resize(250, 30);
    await screen.type(`${OPENCODE_MCP} attach project; echo "code $?"`, 'Enter');
    await screen.shows(/Connect a provider/);
    const tui = await until('its terminal', async () =>
      (await processes(preview.home)).find(({ args }) => /^\S*lildax *$/.test(args)),
    );
    expect(await readlink(`/proc/${tui.pid}/cwd`)).toBe(preview.directory);
    await screen.type('', 'Escape');
    await screen.shows(/^(?![^]*Connect a provider)/);
    await screen.type('', 'C-c');
    await screen.shows(/code 0/);
    const page = runShell(['open', 'project'], home);
    expect(await within(page.ended, 'its end')).toBe(1);
    expect(page.stderr()).toContain('the preview of OpenCode 2 has none');
    const { port, password } = preview;
    await stage.registry.add({ name: 'afar', port, id: 'afar-id' }, { password });
    await screen.type(
      `clear; RELAY_REGISTRY_DIR=${stage.registry.path} TRANSPORT=local-relay ${OPENCODE_MCP} attach afar`,
      'Enter',
    );
    await screen.shows(/opens on the service of its own machine and user only\. Run lildax there/);
  });
});
