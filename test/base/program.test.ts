import { spawn, type ChildProcess } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, onTestFinished, test } from 'vitest';

import { CONNECTED_SCRIPT } from '../rig/connected-child.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { endProcessesIn } from '../rig/processes.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { runProgram } from '../../src/base/program.ts';
import { HANDSHAKE } from '../mcp/raw-server.ts';
import { SELF } from '../node/stage.ts';
import { tailscaled } from '../node/tailscaled.ts';

/** Commands that print something and exit. */
const SHORT = [
  ['opencode-mcp', '--help'],
  ['opencode-mcp', '--version'],
  ['opencode-mcp', 'list'],
  ['opencode-connected', '--help'],
  ['opencode-connected', 'status'],
  ['opencode-connected', 'sessions'],
  ['opencode-connected', 'cleanup'],
] as const;

/** A user id without an entry in the password database. */
const NO_USER = 54_321;

type Stdio = 'pipe' | 'ignore' | number;

interface Started {
  readonly child: ChildProcess;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
}

interface Place {
  readonly temp: TempDir;
  readonly registry: Registry;
  readonly env: Readonly<Record<string, string>>;
}

async function place(): Promise<Place> {
  const temp = tempDir('opencode-mcp-program');
  onTestFinished(async () => {
    await endProcessesIn(temp.tmp);
    await temp.close();
  });
  const registry = await openRegistry(join(temp.path, 'registry'));
  return {
    temp,
    registry,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: temp.path,
      TMPDIR: temp.tmp,
      RELAY_REGISTRY_DIR: registry.path,
      TRANSPORT: 'local-relay',
      OPENCODE_BIN: '/bin/true',
      ...NO_MULTICAST,
    },
  };
}

/** A built program. `shell` runs before it, in its process. */
function start(
  command: readonly [string, ...string[]],
  env: Readonly<Record<string, string>>,
  {
    stdio = ['pipe', 'pipe', 'pipe'],
    cwd = '/',
    shell = ':',
  }: { stdio?: readonly [Stdio, Stdio, Stdio]; cwd?: string; shell?: string } = {},
): Started {
  const [program, ...args] = command;
  const script = program === 'opencode-mcp' ? SERVER_SCRIPT : CONNECTED_SCRIPT;
  const child = spawn('/bin/sh', ['-c', `${shell}; exec "$@"`, 'sh', process.execPath, script, ...args], {
    cwd,
    env,
    stdio: [...stdio],
  });
  let [stdout, stderr] = ['', ''];
  child.stdin?.on('error', () => {});
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = once(child, 'close').then(() => child.exitCode);
  return { child, stdout: () => stdout, stderr: () => stderr, ended };
}

/** An error as a person may see it: one line, without a stack. */
function oneLine(program: string): RegExp {
  return new RegExp(`^${program}: (?!internal error)[^\\n]+\\n$`);
}

describe('standard output that cannot be written', () => {
  test.skipIf(!existsSync('/dev/full')).each(SHORT)('%s %s: a full disk is one line and code 1', async (...command) => {
    const { env } = await place();
    await using full = await open('/dev/full', 'w');
    const { ended, stderr } = start(command, env, { stdio: ['ignore', full.fd, 'pipe'] });
    expect(await within(ended, 'its end')).toBe(1);
    expect(stderr()).toMatch(oneLine(command[0]));
    expect(stderr()).toContain('cannot write to standard output: ENOSPC');
  });

  test.each(SHORT)('%s %s: a reader that has gone ends it without a word', async (...command) => {
    const { env } = await place();
    const { child, ended, stderr } = start(command, env);
    child.stdout?.destroy();
    // The exit code that shells report for SIGPIPE.
    expect(await within(ended, 'its end')).toBe(141);
    expect(stderr()).toBe('');
  });

  test('the MCP server ends in order', async () => {
    const { env } = await place();
    const { child, ended, stderr } = start(['opencode-mcp'], env);
    child.stdout?.destroy();
    child.stdin?.write(HANDSHAKE.map((message) => `${JSON.stringify(message)}\n`).join(''));
    expect(await within(ended, 'its end')).toBe(0);
    expect(stderr()).toBe('');
  });
});

describe('a current directory that was removed', () => {
  test.each([
    ['opencode-mcp'],
    ['opencode-mcp', 'list'],
    ['opencode-mcp', 'node'],
    ['opencode-connected'],
    ['opencode-connected', '--headless'],
    ['opencode-connected', 'status'],
    ['opencode-connected', 'sessions'],
    ['opencode-connected', 'cleanup'],
  ] as const)('%s %s says so', async (...command) => {
    const { env, temp } = await place();
    const cwd = join(temp.path, 'gone');
    await mkdir(cwd);
    const { ended, stderr } = start(command, env, { cwd, shell: 'rmdir ../gone' });
    expect(await within(ended, 'its end')).toBe(1);
    expect(stderr()).toMatch(oneLine(command[0]));
    expect(stderr()).toContain('the current directory no longer exists; change to another one');
  });

  test.each(SHORT.filter(([, flag]) => flag.startsWith('--')))('%s %s needs none', async (...command) => {
    const { env, temp } = await place();
    const cwd = join(temp.path, 'gone');
    await mkdir(cwd);
    const { ended, stdout } = start(command, env, { cwd, shell: 'rmdir ../gone' });
    expect(await within(ended, 'its end')).toBe(0);
    expect(stdout()).not.toBe('');
  });
});

test
  .skipIf(process.getuid?.() !== 0 || process.platform !== 'linux')
  .each([
    ['opencode-mcp'],
    ['opencode-mcp', 'list'],
    ['opencode-mcp', 'node'],
    ['opencode-connected', 'status'],
  ] as const)('%s %s without a home directory says what to set', async (...command) => {
  const { HOME: _, ...env } = (await place()).env;
  // As in a container run under an arbitrary user id.
  const shell = `set -- setpriv --reuid ${NO_USER} --regid ${NO_USER} --clear-groups "$@"`;
  const { ended, stderr } = start(command, env, { shell });
  expect(await within(ended, 'its end')).toBe(1);
  expect(stderr()).toMatch(oneLine(command[0]));
  expect(stderr()).toContain('this user has no home directory');
});

describe('RELAY_SSH_CMD', () => {
  // All cases: test/connected/relay/ssh-command.test.ts.
  const MALFORMED = ['ssh "x', "'' ssh", 'ssh\nx'];
  const SUBCOMMANDS = ['--headless', 'status', 'sessions', 'cleanup'];

  test.each(MALFORMED)('%j stops every subcommand with one line that names it', async (written) => {
    const { env } = await place();
    await Promise.all(
      SUBCOMMANDS.map(async (subcommand) => {
        const { ended, stderr } = start(['opencode-connected', subcommand], { ...env, RELAY_SSH_CMD: written });
        expect(await within(ended, 'its end')).toBe(2);
        expect(stderr()).toMatch(oneLine('opencode-connected'));
        expect(stderr()).toContain('RELAY_SSH_CMD: ');
      }),
    );
  });

  // `spawn` throws for the last two, and emits an event for the others.
  test.each(['/nowhere/ssh x', '-v ssh x', '/', 'false', '/etc/passwd/ssh x', `/${'x'.repeat(300)} x`])(
    '%j, which cannot be run, is told of the relay alone',
    async (written) => {
      const { env } = await place();
      for (const subcommand of ['status', 'cleanup']) {
        const { ended, stdout, stderr } = start(['opencode-connected', subcommand], { ...env, RELAY_SSH_CMD: written });
        expect(await within(ended, 'its end')).toBe(1);
        expect(stdout()).toMatch(/elay[^]*(?:cannot\s+run|ended\s+with\s+status)/);
        expect(stderr()).toBe('');
      }
      const started = start(['opencode-connected', '--headless'], { ...env, RELAY_SSH_CMD: written });
      // The exit code of opencode, which is /bin/true here.
      expect(await within(started.ended, 'its end')).toBe(0);
      expect(started.stderr()).toMatch(/no connection to the relay: [^\n]+; trying again in the background\n$/);
    },
  );
});

/** Ways in which stderr cannot be written. `closed`: 2>&-. */
const STDERRS = ['reader gone', 'disk full', 'closed', 'read by nobody'] as const;

describe.each(STDERRS)('stderr: %s', (kind) => {
  /** With a full log, which goes to stderr. */
  async function startWith(
    command: readonly [string, ...string[]],
    env: Readonly<Record<string, string>>,
  ): Promise<Started> {
    const logged = { OPENCODE_MCP_LOG_LEVEL: 'debug', ...env };
    if (kind === 'closed') return start(command, logged, { shell: 'exec 2>&-' });
    if (kind === 'disk full') return start(command, logged, { shell: 'exec 2>/dev/full' });
    const started = start(command, logged);
    if (kind === 'reader gone') started.child.stderr?.destroy();
    else started.child.stderr?.removeAllListeners('data').pause();
    return started;
  }

  test('the MCP server goes on, with as much to log as a client can cause', async () => {
    const { env, registry } = await place();
    await using opencode = await startFakeOpencode();
    await registry.add({ name: 'one', port: opencode.port });
    const { child, ended, stdout } = await startWith(['opencode-mcp'], env);
    const send = (...messages: readonly (object | string)[]): void =>
      void child.stdin?.write(
        messages.map((one) => (typeof one === 'string' ? one : `${JSON.stringify(one)}\n`)).join(''),
      );
    send(...HANDSHAKE);
    // Each causes a log line; together far more than a pipe holds.
    for (let round = 0; round < 4; round += 1) send(`no message ${'x'.repeat(40)}\n`.repeat(2_000));
    const call = { method: 'tools/call', params: { name: 'instances', arguments: {} } };
    send({ jsonrpc: '2.0', id: 1, ...call });
    await until('the answer', () => stdout().includes('"id":1'));
    expect(stdout()).toContain('one');
    child.stdin?.end();
    expect(await within(ended, 'its end')).toBe(0);
  });

  test('the node service goes on', async () => {
    const { env, temp } = await place();
    const port = await freePort();
    const socketPath = join(temp.path, 'tailscaled.sock');
    await tailscaled(socketPath);
    const { child, ended } = await startWith(['opencode-mcp', 'node'], {
      ...env,
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
    });
    // By then it has logged that it listens, and the caller.
    const list = (): Promise<number | undefined> =>
      fetch(`http://${SELF}:${port}${LIST_PATH}`).then(
        ({ status }) => status,
        () => undefined,
      );
    expect(await until('its list', list)).toBe(200);
    expect(await list()).toBe(200);
    expect(child.exitCode).toBe(null);
    child.kill('SIGTERM');
    expect(await within(ended, 'its end')).toBe(0);
  });

  test.each([
    ['opencode-mcp', 'list'],
    ['opencode-connected', 'status'],
    ['opencode-connected', 'sessions'],
    ['opencode-connected', 'cleanup'],
  ] as const)('%s %s prints what it found', async (...command) => {
    const { env } = await place();
    const { ended, stdout } = await startWith(command, { ...env, OPENCODE_MCP_READONLY: 'a warning' });
    expect(await within(ended, 'its end')).toBe(0);
    expect(stdout()).not.toBe('');
  });

  test('opencode-connected runs opencode, and ends as it does', async () => {
    const { env } = await place();
    const { ended } = await startWith(['opencode-connected', '--headless', '--no-password'], {
      ...env,
      RELAY_SSH_CMD: '/nowhere/ssh relay',
    });
    expect(await within(ended, 'its end')).toBe(0);
  });
});

test('stderr that nobody reads holds a bounded text, and says how much was dropped once it is read', async () => {
  const taken: string[] = [];
  let read: (() => void) | undefined;
  const stderr = new Writable({
    decodeStrings: false,
    write(text: string, _, done) {
      taken.push(text);
      read = done;
    },
  });
  const stand = Object.assign(new EventEmitter(), { stderr, stdout: new PassThrough() });
  const line = `${'x'.repeat(99)}\n`;
  await runProgram('test', stand as unknown as NodeJS.Process, async ({ tell }) => {
    for (let count = 0; count < 100_000; count += 1) tell(line);
    expect(stderr.writableLength).toBeLessThan(70_000);
    while (stderr.writableLength > 0) {
      read?.();
      await nextTurn();
    }
    tell('after\n');
  });
  read?.();
  await nextTurn();
  const dropped = 100_000 - taken.filter((text) => text === line).length;
  expect(taken.slice(-2)).toEqual([`${dropped} log lines were dropped, because nobody read them\n`, 'after\n']);
});

describe('a full disk for logs', () => {
  test.skipIf(!existsSync('/dev/full'))(
    'neither the record of calls nor the log of a wrapper ends anything',
    async () => {
      const { env, temp, registry } = await place();
      await using opencode = await startFakeOpencode();
      await registry.add({ name: 'one', port: opencode.port });
      const state = join(temp.path, '.local', 'state', 'opencode-mcp');
      await mkdir(join(state, 'logs'), { recursive: true });
      await symlink('/dev/full', join(state, 'record.jsonl'));
      await symlink('/dev/full', join(state, 'logs', 'opencode-connected.log'));
      const { child, ended, stdout, stderr } = start(['opencode-mcp'], env);
      const read = { name: 'get_status', arguments: { instance: 'one' } };
      const calls = [1, 2, 3].map((id) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: read }));
      child.stdin?.write([...HANDSHAKE, ...calls].map((message) => `${JSON.stringify(message)}\n`).join(''));
      await until('a word about the record', () => stderr().includes('cannot write the record of calls'));
      await until('every answer', () => calls.every(({ id }) => stdout().includes(`"id":${id}`)));
      expect(stderr()).toContain('ENOSPC');
      child.stdin?.end();
      expect(await within(ended, 'its end')).toBe(0);
      const wrapper = start(['opencode-connected', '--headless'], { ...env, RELAY_SSH_CMD: '/nowhere/ssh relay' });
      expect(await within(wrapper.ended, 'its end')).toBe(0);
    },
  );
});

describe('a missing secret of one instance', () => {
  const NONE = { env: 'NONE' };
  const failing = { command: ['/bin/false'] };
  /** The password file of one of two static instances. All cases: test/credentials/secret.test.ts. */
  const PLACES: readonly (readonly [string, object, RegExp])[] = [
    ['a header of an unset variable', { headers: { 'X-Token': NONE } }, /header X-Token: .*variable NONE is not set/],
    ['a header of a failing command', { headers: { 'X-Token': failing } }, /header X-Token: .*\/bin\/false ended/],
    ['a password of a missing file', { password: { file: '/nowhere/secret' } }, /\/nowhere\/secret: no such file/],
  ];

  test.each(PLACES)('%s locks that instance, which says so, and stops no program', async (_, fields, reason) => {
    const { env, temp } = await place();
    await using locked = await startFakeOpencode({ password: 'pa55word' });
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    const config = join(temp.path, 'config.json');
    const instances = [
      { name: 'needs-it', url: locked.url, ...fields },
      { name: 'other', url: other.url },
    ];
    await writeFile(config, JSON.stringify({ instances }), { mode: 0o600 });
    const withStatic = { ...env, TRANSPORT: 'all', TAILSCALE_SOCKET: join(temp.path, 'none.sock') };
    const list = start(['opencode-mcp', 'list', '--config', config], withStatic);
    expect(await within(list.ended, 'its end')).toBe(0);
    expect(list.stdout()).toMatch(/^other +idle/m);
    const entry = /^.*needs-it.*$/m.exec(list.stdout())?.[0] ?? '';
    expect(entry).toContain('locked');
    expect(list.stdout()).toMatch(reason);
    for (const subcommand of ['status', 'sessions', 'cleanup']) {
      const { ended, stderr } = start(['opencode-connected', subcommand, '--config', config], env);
      expect([await within(ended, 'its end'), stderr()]).toEqual([0, '']);
    }
  });

  test.each([
    ['the default password', { password: NONE }],
    ['the password of a rule', { credentials: [{ name: 'needs-it', password: NONE }] }],
  ])('%s locks only the instances that need it', async (_, fields) => {
    const { env, temp, registry } = await place();
    await using locked = await startFakeOpencode({ password: 'pa55word' });
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    await registry.add({ name: 'needs-it', port: locked.port });
    await registry.add({ name: 'other', port: other.port, cwd: other.directory });
    const config = join(temp.path, 'config.json');
    await writeFile(config, JSON.stringify(fields), { mode: 0o600 });
    const { ended, stdout } = start(['opencode-mcp', 'list', '--config', config], env);
    expect(await within(ended, 'its end')).toBe(0);
    expect(stdout()).toMatch(/^other +idle/m);
    expect(stdout()).toMatch(/^needs-it +locked/m);
    expect(stdout()).toContain('the environment variable NONE is not set');
  });

  test('a header read from a file is sent with every request', async () => {
    const { env, temp } = await place();
    const seen = new Set<unknown>();
    await using listener = await listenHttp(({ headers }, response) => {
      seen.add(headers['x-token']);
      response.writeHead(500).end();
    });
    await writeFile(join(temp.path, 'token'), 'from a file\n');
    const config = join(temp.path, 'config.json');
    const instance = { name: 'one', url: listener.url, headers: { 'X-Token': { file: 'token' } } };
    await writeFile(config, JSON.stringify({ instances: [instance] }), { mode: 0o600 });
    const { ended } = start(['opencode-mcp', 'list', '--config', config], { ...env, TRANSPORT: 'static' });
    expect(await within(ended, 'its end')).toBe(0);
    expect([...seen]).toEqual(['from a file']);
  });
});
