import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';

import { Client as McpClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { expect, onTestFinished, test } from 'vitest';

import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { tempDir } from '../rig/temp.ts';
import { needTmux, openTmux } from '../rig/programs/tmux.ts';
import { runInProcess } from '../commands/in-process.ts';
import { init as runInit } from '../../src/commands/init.ts';
import { CLIENTS } from '../../src/setup/clients.ts';

function createHome(): string {
  const temp = tempDir('opencode-mcp-init');
  onTestFinished(() => temp.close());
  return temp.path;
}

function init(home: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const fullEnv = { PATH: '/nowhere', HOME: home, ...env };
  return runInProcess(args, fullEnv, (fakeProcess, output) => runInit(args, fakeProcess, output));
}

/** The files of every client on this system after its first run. */
const FILES: Readonly<Record<string, string>> = {
  '.claude.json': '{\n  "numStartups": 1\n}',
  '.config/Claude/claude_desktop_config.json': '{}',
  '.codex/config.toml': 'model = "gpt-5"\n',
  '.config/opencode/opencode.jsonc': '{\n  // mine\n}\n',
  '.config/Code/User/mcp.json': '',
  '.cursor/mcp.json': '{"mcpServers":{}}',
  '.gemini/settings.json': '{}\n',
  '.config/zed/settings.json': '// Zed\n{\n  "theme": "One",\n}\n',
};

async function writeFiles(home: string, files = FILES): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(home, name)), { recursive: true });
    await writeFile(join(home, name), text);
  }
}

async function readFiles(home: string): Promise<Record<string, string>> {
  const entries = await readdir(home, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Object.fromEntries(
    await Promise.all(files.map(async (file) => [file.slice(home.length + 1), await readFile(file, 'utf8')] as const)),
  );
}

test('init without a terminal or --yes shows each change and writes nothing', async () => {
  const folder = createHome();
  await writeFiles(folder);
  const { code, stdout, stderr } = await init(folder, []);
  expect(code).toBe(1);
  for (const { title } of CLIENTS) expect(stdout).toMatch(new RegExp(`^${title}: ~/`, 'm'));
  expect(stdout).toContain(`+   "mcpServers": {`);
  expect(stdout).toContain('+ [mcp_servers.opencode]');
  expect(stdout).not.toContain('Not found here');
  expect(stderr).toContain('nothing was written: there is no terminal to ask in; --yes writes');
  expect(await readFiles(folder)).toEqual(FILES);
});

test('--yes adds only the command to every client, a second run changes nothing, and --remove restores all', async () => {
  const folder = createHome();
  await writeFiles(folder);
  const env = { OPENCODE_SERVER_PASSWORD: 'hunter2', RELAY_REGISTRY_DIR: '/elsewhere' };
  const first = await init(folder, ['--yes'], env);
  expect(first.code).toBe(0);
  const written = await readFiles(folder);
  for (const value of Object.values(env)) expect(JSON.stringify(written)).not.toContain(value);
  for (const [name, before] of Object.entries(FILES)) {
    expect(written[name]).toContain(JSON.stringify(SERVER_SCRIPT));
    expect(written[name]).toContain(JSON.stringify(process.execPath));
    expect(written[`${name}.before-opencode-mcp`]).toBe(before);
    expect(first.stdout).toContain(`copy of the old file: ~/${name}.before-opencode-mcp`);
  }
  const second = await init(folder, ['--yes']);
  expect([second.code, second.stdout.endsWith('Nothing to change.\n')]).toEqual([0, true]);
  expect(await readFiles(folder)).toEqual(written);

  const removal = await init(folder, ['--remove', '--yes']);
  expect(removal.code).toBe(0);
  const after = await readFiles(folder);
  const restored = Object.keys(FILES).map((name) => [name, after[name]]);
  // An empty file becomes an empty object, and a list of servers is removed with its last entry.
  const emptied = { '.config/Code/User/mcp.json': '{}\n', '.cursor/mcp.json': '{}' };
  expect(Object.fromEntries(restored)).toEqual({ ...FILES, ...emptied });
  expect((await init(folder, ['--remove', '--yes'])).stdout).toMatch(/Nothing to change\.\n$/);
});

test('a malformed or unreadable file is reported and left unchanged, and the other files are written', async () => {
  const folder = createHome();
  await writeFiles(folder, {
    '.cursor/mcp.json': '{\n  "a": 1,,\n}',
    '.gemini/settings.json': '{}',
    '.codex/config.toml': 'a = \n',
  });
  const { code, stdout } = await init(folder, ['--yes']);
  expect(code).toBe(1);
  expect(stdout).toContain('Cursor: ~/.cursor/mcp.json\n  not changed: line 2: ');
  expect(stdout).toContain('Codex: ~/.codex/config.toml\n  not changed: line 1: ');
  expect(stdout).toContain('Gemini CLI: written');
  const after = await readFiles(folder);
  expect([after['.cursor/mcp.json'], after['.codex/config.toml']]).toEqual(['{\n  "a": 1,,\n}', 'a = \n']);
  expect(Object.keys(after).filter((name) => name.includes('before'))).toEqual([
    '.gemini/settings.json.before-opencode-mcp',
  ]);
});

test('init also finds clients by programs on PATH and by their own variables, and names missing clients', async () => {
  const folder = createHome();
  await writeFiles(folder, { 'bin/claude': '', 'codex-home/config.toml': '' });
  await chmod(join(folder, 'bin/claude'), 0o755);
  const env = { PATH: join(folder, 'bin'), CODEX_HOME: join(folder, 'codex-home') };
  const { stdout } = await init(folder, ['--yes'], env);
  expect(stdout).toContain('Claude Code: ~/.claude.json\n  new file:\n');
  expect(stdout).toContain('Codex: ~/codex-home/config.toml\n');
  expect(stdout).toContain(
    'Not found here: Claude Desktop, opencode, VS Code, Cursor, Gemini CLI, Zed (opencode-mcp init --print)',
  );
  expect(await readFile(join(folder, '.claude.json'), 'utf8')).toContain('"type": "stdio"');
});

test('init without any client names the known clients; --client creates the file, --print shows the entry', async () => {
  const folder = createHome();
  const withoutClients = await init(folder, []);
  expect([withoutClients.code, withoutClients.stderr]).toEqual([
    1,
    expect.stringContaining('no MCP client was found here (known: Claude Code, '),
  ]);
  const printed = await init(folder, ['--print', 'claude-desktop']);
  const [, snippet = ''] = printed.stdout.split(':\n\n');
  expect((await init(folder, ['--client', 'claude-desktop', '--yes'])).code).toBe(0);
  const file = join(folder, '.config/Claude/claude_desktop_config.json');
  expect(JSON.parse(snippet)).toEqual(JSON.parse(await readFile(file, 'utf8')));
  const rest = (await init(folder, ['--print'])).stdout;
  expect(rest).not.toContain('Claude Desktop');
  for (const title of ['Claude Code', 'Codex', 'opencode', 'VS Code', 'Cursor', 'Gemini CLI', 'Zed'])
    expect(rest).toContain(`${title}, in ~/`);
});

test('--json prints the planned changes, and with --yes the results', async () => {
  const folder = createHome();
  await writeFiles(folder, { '.cursor/mcp.json': '{}', '.gemini/settings.json': '{' });
  const clientRows = async (...args: string[]): Promise<unknown> =>
    JSON.parse((await init(folder, ['--json', ...args])).stdout);
  const gemini = {
    client: 'gemini',
    file: join(folder, '.gemini/settings.json'),
    change: 'failed',
    written: false,
    reason: 'line 1: close brace expected; correct that first',
  };
  const cursor = { client: 'cursor', file: join(folder, '.cursor/mcp.json'), change: 'add', written: false };
  expect(await clientRows()).toEqual({ clients: [cursor, gemini] });
  const backup = join(folder, '.cursor/mcp.json.before-opencode-mcp');
  expect(await clientRows('--yes')).toEqual({ clients: [{ ...cursor, written: true, backup }, gemini] });
});

test.each([
  [['--clint', 'x'], '--clint: unknown flag, see --help; did you mean --client?'],
  [['--client', 'emacs'], 'expected some of claude-code, '],
  [['--read-only'], '--read-only: init takes no settings'],
  [['--remove', '--relay', 'you@relay'], '--remove: expected without --relay and --print'],
  [['--relay', '-oProxyCommand=x'], '--relay: expected you@host, got "-oProxyCommand=x"'],
  [['cursor'], 'unexpected argument "cursor"'],
])('%j is refused', async (args, reason) => {
  const { code, stderr } = await init(createHome(), args);
  expect([code, stderr]).toEqual([2, expect.stringContaining(reason)]);
});

test('the written entry starts the server for a client without PATH', async () => {
  const folder = createHome();
  await writeFiles(folder, { '.cursor/mcp.json': '' });
  await init(folder, ['--yes']);
  const { mcpServers } = JSON.parse(await readFile(join(folder, '.cursor/mcp.json'), 'utf8')) as {
    readonly mcpServers: Readonly<Record<string, { readonly command: string; readonly args: string[] }>>;
  };
  const client = new McpClient({ name: 'no-path', version: '1' });
  const env = { PATH: '', HOME: folder, RELAY_REGISTRY_DIR: folder, TRANSPORT: 'local-relay', ...NO_MULTICAST };
  await client.connect(new StdioClientTransport({ ...mcpServers['opencode']!, env, stderr: 'ignore' }));
  const { tools } = await client.listTools();
  await client.close();
  expect(tools.map(({ name }) => name)).toContain('send');
});

test('init asks in a terminal before it writes', async (context) => {
  needTmux(context);
  const folder = createHome();
  await writeFiles(folder, { '.cursor/mcp.json': '{}' });
  await using terminal = await openTmux({ PATH: '/usr/bin:/bin', HOME: folder }, folder);
  await terminal.resize(60, 50);
  const run = async (name: string, answer: string, key: string): Promise<string> => {
    await terminal.type(`clear; echo ${name}; ${process.execPath} ${SERVER_SCRIPT} init; echo "code $?"`, 'Enter');
    await terminal.shows(new RegExp(`^${name}$[^]*Write this change\\? \\[y/N\\]`, 'm'));
    await terminal.type(answer, key);
    return await terminal.shows(new RegExp(`^${name}$[^]*^code \\d+$`, 'm'));
  };
  for (const [name, key] of [
    ['return', 'Enter'],
    ['interrupt', 'C-c'],
    ['end', 'C-d'],
  ] as const) {
    expect(await run(name, '', key)).toMatch(/^Nothing was written\.\ncode 0$/m);
    expect(await readFiles(folder)).toEqual({ '.cursor/mcp.json': '{}' });
  }
  const screen = await run('yes', 'y', 'Enter');
  expect(screen).toContain('Cursor: ~/.cursor/mcp.json\n  line 1:\n  - {}\n  + {\n');
  expect(screen).toContain('Cursor: written; ');
  expect((await readFiles(folder))['.cursor/mcp.json']).toContain('opencode');
});
