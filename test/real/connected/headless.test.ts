import { spawnSync } from 'node:child_process';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import {
  CONNECTED_SCRIPT,
  type ConnectedChild,
  type ConnectedOptions,
  filesIn,
  startConnected,
} from '../../rig/connected-child.ts';
import { startMcpChild } from '../../rig/mcp-child.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { createProject } from '../../rig/opencode-sandbox.ts';
import { startScriptedModel } from '../../rig/scripted-model.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';
import { CLAUDE_CODE } from './relay-stage.ts';

const closers: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

async function connected(options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const child = await startConnected(options);
  closers.push(() => child.close());
  return child;
}

function tempFolder(): string {
  const temp = tempDir('opencode-connected');
  closers.push(() => temp.close());
  return temp.path;
}

/** A shell script that replaces opencode. */
async function program(text: string): Promise<string> {
  const path = join(tempFolder(), 'opencode');
  // It prints no version.
  await writeFile(path, `#!/bin/sh\n[ "$1" != --version ] || exit 0\n${text}\n`);
  await chmod(path, 0o755);
  return path;
}

async function nothingLeft(child: ConnectedChild): Promise<void> {
  let left: readonly string[] = [];
  await until('nothing to be left', async () => (left = await child.left()).length === 0).catch((error: unknown) => {
    throw new Error(`left: ${left.join(', ')}`, { cause: error });
  });
}

describe.skipIf(isMissing(PINNED_OPENCODE))('opencode-connected --headless', () => {
  /** opencode decides how it ends on a signal, and the wrapper ends in the same way. */
  async function endsBy(signal: 'SIGINT' | 'SIGHUP', child: ConnectedChild): Promise<void> {
    child.kill(signal);
    expect([
      { code: 0, signal: null },
      { code: null, signal },
    ]).toContainEqual(await child.exited);
    await nothingLeft(child);
  }

  test('registers a real opencode behind a password, which a server lists and drives; SIGINT ends it and withdraws everything', async () => {
    await using model = await startScriptedModel();
    const child = await connected({ model });
    const registered = await child.registered();
    expect(registered).toMatchObject({ protocol: 1, cwd: child.directory, hostname: hostname() });
    expect(registered.port).toBe(registered.localPort);
    expect(registered.port).toBeGreaterThanOrEqual(4096);
    expect(registered.port).toBeLessThanOrEqual(5095);
    expect(JSON.stringify(registered)).not.toContain(await child.password());
    const url = `http://127.0.0.1:${registered.port}/global/health`;
    expect((await fetch(url)).status).toBe(401);
    const modes = [
      child.registry,
      join(child.registry, '.credentials'),
      join(child.registry, '.credentials', registered.id),
    ];
    expect(await Promise.all(modes.map(async (path) => (await stat(path)).mode & 0o777))).toEqual([
      0o700, 0o700, 0o600,
    ]);

    await using server = await startMcpChild({
      clientInfo: CLAUDE_CODE,
      args: ['--registry-dir', child.registry, '--health-timeout-ms', '15000'],
      env: { HOME: child.env['HOME'] ?? '' },
    });
    const { result } = await server.call('instances');
    expect(result.structuredContent).toMatchObject({ instances: [{ name: registered.name, state: 'idle' }] });
    const sent = await server.call('send', { instance: registered.name, message: 'echo: from the wrapper' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'from the wrapper' });

    const { code, output } = run(child, ['status', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(output)).toMatchObject({
      here: { instances: [{ name: registered.name }] },
      wrappers: [{ name: registered.name, pid: child.pid }],
    });
    await endsBy('SIGINT', child);
  });

  test('the name of a directory may contain any characters', async () => {
    await using model = await startScriptedModel();
    const directory = join(tempFolder(), '-n it\'s "quoted" $(touch pwned) `id`, Ünïcödé 目录 🦊,\ntwo lines');
    await createProject(directory);
    const child = await connected({ directory, model });
    const registered = await child.registered();
    expect(registered.cwd).toBe(directory);
    await using server = await startMcpChild({
      clientInfo: CLAUDE_CODE,
      args: ['--registry-dir', child.registry, '--health-timeout-ms', '15000'],
      env: { HOME: child.env['HOME'] ?? '' },
    });
    const sent = await server.call('send', { instance: registered.name, message: 'echo: here' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'here' });
  });

  test('takes another port when a stranger listens on the chosen one', async () => {
    const asked = join(tempFolder(), 'asked');
    const opencode = await program(`[ -e "${asked}" ] && exec "${PINNED_OPENCODE}" "$@"
echo "$3" >"${asked}.tmp" && mv "${asked}.tmp" "${asked}"
exec sleep 600`);
    const child = await connected({ opencode });
    const port = Number(await until('the port', () => readFile(asked, 'utf8').catch(() => undefined)));
    const stranger = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => stranger.listen(port, '127.0.0.1', resolve));
    closers.push(() => new Promise((resolve) => stranger.close(resolve)));
    const registered = await child.registered();
    expect(registered.port).not.toBe(port);
    expect((await fetch(`http://127.0.0.1:${registered.port}/global/health`)).status).toBe(401);
  });

  test('opencode gets the arguments and the environment, without npm variables, and its exit code is returned', async () => {
    const seen = join(tempFolder(), 'seen');
    const opencode = await program(`{ printf '%s\\n' "$@"; env; } >"${seen}"; exit 7`);
    const child = await connected({
      opencode,
      args: ['--headless', '--', '--log-level', 'a "b" $c'],
      env: {
        npm_config_registry: 'http://127.0.0.1:9/',
        npm_package_name: 'x',
        npm_lifecycle_event: 'y',
        KEPT: 'kept',
      },
    });
    expect(await child.exited).toEqual({ code: 7, signal: null });
    const lines = (await readFile(seen, 'utf8')).split('\n');
    expect(lines.slice(0, 7)).toEqual([
      'serve',
      '--port',
      expect.any(String),
      '--hostname',
      '127.0.0.1',
      '--log-level',
      'a "b" $c',
    ]);
    expect(lines.filter((line) => line.startsWith('npm_'))).toEqual([]);
    expect(lines).toContain('KEPT=kept');
    expect(lines).toContain(`OPENCODE_CONFIG=${child.env['OPENCODE_CONFIG']}`);
    expect(lines.filter((line) => /^OPENCODE_SERVER_PASSWORD=.{20,}/.test(line))).toHaveLength(1);
    await nothingLeft(child);
  });

  test('reports an opencode that is too old, and ends it', async () => {
    const opencode = await program(`exec "${process.execPath}" -e '
      const body = { "/global/health": { healthy: true, version: "1.0.5" }, "/path": { directory: "/", worktree: "/" } };
      require("http").createServer((request, response) => {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(body[request.url]));
      }).listen(process.argv[3], "127.0.0.1")' "$@"`);
    const child = await connected({ opencode });
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain(
      'opencode 1.0.5 is too old; 1.18.10 or newer is needed; its terminal does not work',
    );
    await nothingLeft(child);
  });

  test('--no-password warns, and keeps no password; SIGHUP ends it and withdraws everything', async () => {
    const child = await connected({ args: ['--headless', '--no-password'] });
    const { port } = await child.registered();
    expect(child.output()).toContain('without a password every user of this machine');
    expect((await fetch(`http://127.0.0.1:${port}/global/health`)).status).toBe(200);
    expect((await filesIn(child.registry)).filter((path) => path.includes('.credentials'))).toEqual([]);
    await endsBy('SIGHUP', child);
  });

  test.each([
    [['stat'], '"stat": neither a directory nor a subcommand'],
    [['--headles'], '--headles'],
    [['--', '--port', '1'], 'leave it out'],
    [['status', '--', 'x'], 'takes nothing after --'],
  ])('%j is refused before anything starts', async (args, message) => {
    const child = await connected({ args });
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.output()).toContain(message);
    expect(await child.left()).toEqual([]);
  });
});

function run(child: ConnectedChild, args: readonly string[]): { code: number; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CONNECTED_SCRIPT, ...args], {
    env: child.env,
    cwd: child.directory,
    encoding: 'utf8',
  });
  return { code: status ?? -1, output: stdout + (status === 0 ? '' : stderr) };
}
