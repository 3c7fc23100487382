import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, onTestFinished, test } from 'vitest';

import { CONNECTED_SCRIPT } from '../rig/programs/connected-child.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { endProcessesIn } from '../rig/processes.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { runProgram } from '../../src/base/program.ts';
import { HANDSHAKE } from '../mcp/raw-server.ts';
import { SELF } from '../node/stage.ts';
import { tailscaled } from '../node/tailscaled.ts';

/** A user id without an entry in the password database. */
const NO_USER = 54_321;

type Stdio = 'pipe' | 'ignore' | number;

interface StartOptions {
  readonly stdio?: readonly [Stdio, Stdio, Stdio];
  readonly cwd?: string;
  /** Runs before the program, in its process. */
  readonly shell?: string;
}

async function openHome() {
  const temp = tempDir('opencode-mcp-program');
  onTestFinished(async () => {
    await endProcessesIn(temp.tmp);
    await temp.close();
  });
  const registry = await openRegistry(join(temp.path, 'registry'));
  const env: Readonly<Record<string, string>> = {
    PATH: process.env['PATH'] ?? '',
    HOME: temp.path,
    TMPDIR: temp.tmp,
    RELAY_REGISTRY_DIR: registry.path,
    TRANSPORT: 'local-relay',
    OPENCODE_BIN: '/bin/true',
    ...NO_MULTICAST,
  };
  return { temp, registry, env };
}

/** Starts a built program; `command` is split at spaces. */
function start(
  command: string,
  env: Readonly<Record<string, string>>,
  { stdio = ['pipe', 'pipe', 'pipe'], cwd = '/', shell = ':' }: StartOptions = {},
) {
  const [program, ...args] = command.split(' ');
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
  const closed = once(child, 'close');
  /** Waits for the program to end. */
  const exit = async () => {
    await within(closed, `the end of ${command}`);
    return { code: child.exitCode, stdout, stderr };
  };
  return { child, stdout: () => stdout, stderr: () => stderr, exit };
}

const run = (...args: Parameters<typeof start>) => start(...args).exit();

/** Matches one line that contains `words`, without a stack. */
function oneLine(command: string, words: string): RegExp {
  return new RegExp(`^${command.split(' ', 1)[0]}: (?!internal error)[^\\n]*${words}[^\\n]*\\n$`);
}

// `status` sets an exit code of its own when it is done.
describe.each(['opencode-mcp --help', 'opencode-mcp list', 'opencode-connected status'])(
  '%s, whose standard output cannot be written',
  (command) => {
    test.skipIf(!existsSync('/dev/full'))('reports a full disk on one line and ends with code 1', async () => {
      const { env } = await openHome();
      await using full = await open('/dev/full', 'w');
      expect(await run(command, env, { stdio: ['ignore', full.fd, 'pipe'] })).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(oneLine(command, 'cannot write to standard output: ENOSPC')),
      });
    });

    test('ends without a message if the reader has gone', async () => {
      const { env } = await openHome();
      const { child, exit } = start(command, env);
      child.stdout?.destroy();
      // The exit code that shells report for SIGPIPE.
      expect(await exit()).toMatchObject({ code: 141, stderr: '' });
    });
  },
);

test('the MCP server ends with code 0 if the reader of its standard output has gone', async () => {
  const { env } = await openHome();
  const { child, exit } = start('opencode-mcp', env);
  child.stdout?.destroy();
  child.stdin?.write(HANDSHAKE.map((message) => `${JSON.stringify(message)}\n`).join(''));
  expect(await exit()).toMatchObject({ code: 0, stderr: '' });
});

describe('in a current directory that was removed', () => {
  const runThere = async (command: string) => {
    const { env, temp } = await openHome();
    const cwd = join(temp.path, 'gone');
    await mkdir(cwd);
    return run(command, env, { cwd, shell: 'rmdir ../gone' });
  };

  test.each(['opencode-mcp', 'opencode-mcp node', 'opencode-connected --headless', 'opencode-connected status'])(
    '%s reports that the directory is gone',
    async (command) => {
      expect(await runThere(command)).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(
          oneLine(command, 'the current directory no longer exists; change to another one'),
        ),
      });
    },
  );

  test.each(['opencode-mcp', 'opencode-connected'])('%s --help runs', async (program) => {
    expect(await runThere(`${program} --help`)).toMatchObject({ code: 0, stdout: expect.stringContaining(program) });
  });
});

test
  .skipIf(process.getuid?.() !== 0 || process.platform !== 'linux')
  .each(['opencode-mcp', 'opencode-connected status'])(
  '%s without a home directory says what to set',
  async (command) => {
    const { HOME: _, ...env } = (await openHome()).env;
    // As in a container run under an arbitrary user id.
    const shell = `set -- setpriv --reuid ${NO_USER} --regid ${NO_USER} --clear-groups "$@"`;
    expect(await run(command, env, { shell })).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(oneLine(command, 'this user has no home directory')),
    });
  },
);

describe('RELAY_SSH_CMD', () => {
  // test/connected/relay/ssh-command.test.ts tests all malformed commands.
  test.each([
    ['opencode-connected --headless', 'ssh "x'],
    ['opencode-connected status', 'ssh "x'],
    ['opencode-connected sessions', "'' ssh"],
    ['opencode-connected cleanup', 'ssh\nx'],
  ])('%s with RELAY_SSH_CMD=%j ends with one line that names it', async (command, sshCommand) => {
    const { env } = await openHome();
    expect(await run(command, { ...env, RELAY_SSH_CMD: sshCommand })).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(oneLine(command, 'RELAY_SSH_CMD: ')),
    });
  });

  // `spawn` emits an error for the first, and throws for the last.
  test.each(['/nowhere/ssh x', 'false', `/${'x'.repeat(300)} x`])(
    '%j, which fails, makes only the relay unavailable',
    async (sshCommand) => {
      const { env } = await openHome();
      const withRelay = { ...env, RELAY_SSH_CMD: sshCommand };
      for (const subcommand of ['status', 'cleanup'])
        expect(await run(`opencode-connected ${subcommand}`, withRelay)).toMatchObject({
          code: 1,
          stdout: expect.stringMatching(/elay[^]*(?:cannot\s+run|ended\s+with\s+status)/),
          stderr: '',
        });
      expect(await run('opencode-connected --headless', withRelay)).toMatchObject({
        // The exit code of opencode, which is /bin/true here.
        code: 0,
        stderr: expect.stringMatching(/no connection to the relay: [^\n]+; trying again in the background\n$/),
      });
    },
  );
});

describe.each(['reader gone', 'disk full', 'closed', 'unread'])('stderr: %s', (kind) => {
  /** Starts a program that logs everything to such a stderr. */
  function startWithStderr(command: string, env: Readonly<Record<string, string>>) {
    const logged = { OPENCODE_MCP_LOG_LEVEL: 'debug', ...env };
    if (kind === 'closed') return start(command, logged, { shell: 'exec 2>&-' });
    if (kind === 'disk full') return start(command, logged, { shell: 'exec 2>/dev/full' });
    const started = start(command, logged);
    if (kind === 'reader gone') started.child.stderr?.destroy();
    else started.child.stderr?.removeAllListeners('data').pause();
    return started;
  }

  test('the MCP server continues, however much a client makes it log', async () => {
    const { env, registry } = await openHome();
    await using opencode = await startFakeOpencode();
    await registry.add({ name: 'one', port: opencode.port });
    const { child, exit, stdout } = startWithStderr('opencode-mcp', env);
    const call = { method: 'tools/call', params: { name: 'instances', arguments: {} } };
    for (const message of HANDSHAKE) child.stdin?.write(`${JSON.stringify(message)}\n`);
    // Each causes a log line; together far more than a pipe holds.
    for (let round = 0; round < 4; round += 1) child.stdin?.write(`no message ${'x'.repeat(40)}\n`.repeat(2_000));
    child.stdin?.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, ...call })}\n`);
    await until('the answer', () => stdout().includes('"id":1'));
    expect(stdout()).toContain('one');
    child.stdin?.end();
    expect((await exit()).code).toBe(0);
  });

  test('the node service continues', async () => {
    const { env, temp } = await openHome();
    const port = await freePort();
    const socketPath = join(temp.path, 'tailscaled.sock');
    await tailscaled(socketPath);
    const { child, exit } = startWithStderr('opencode-mcp node', {
      ...env,
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
    });
    // Once it answers, it has logged that it listens and who called.
    const list = (): Promise<number | undefined> =>
      fetch(`http://${SELF}:${port}${LIST_PATH}`).then(
        ({ status }) => status,
        () => undefined,
      );
    expect(await until('its list', list)).toBe(200);
    expect(await list()).toBe(200);
    expect(child.exitCode).toBe(null);
    child.kill('SIGTERM');
    expect((await exit()).code).toBe(0);
  });

  test.each(['opencode-mcp list', 'opencode-connected status'])('%s prints its results', async (command) => {
    const { env } = await openHome();
    const { code, stdout } = await startWithStderr(command, { ...env, OPENCODE_MCP_READONLY: 'a warning' }).exit();
    expect(code).toBe(0);
    expect(stdout).not.toBe('');
  });

  test('opencode-connected runs opencode and ends with its exit code', async () => {
    const { env } = await openHome();
    const withRelay = { ...env, RELAY_SSH_CMD: '/nowhere/ssh relay' };
    const { code } = await startWithStderr('opencode-connected --headless --no-password', withRelay).exit();
    expect(code).toBe(0);
  });
});

test('unread text on stderr is bounded, and the number of dropped lines is reported once stderr is read', async () => {
  const written: string[] = [];
  let finishWrite: (() => void) | undefined;
  const stderr = new Writable({
    decodeStrings: false,
    write(text: string, _, done) {
      written.push(text);
      finishWrite = done;
    },
  });
  const fakeProcess = Object.assign(new EventEmitter(), { stderr, stdout: new PassThrough() });
  const line = `${'x'.repeat(99)}\n`;
  await runProgram('test', fakeProcess as unknown as NodeJS.Process, async ({ tell }) => {
    for (let count = 0; count < 100_000; count += 1) tell(line);
    expect(stderr.writableLength).toBeLessThan(70_000);
    while (stderr.writableLength > 0) {
      finishWrite?.();
      await nextTurn();
    }
    tell('after\n');
  });
  finishWrite?.();
  await nextTurn();
  const dropped = 100_000 - written.filter((text) => text === line).length;
  expect(written.slice(-2)).toEqual([`${dropped} log lines were dropped, because nobody read them\n`, 'after\n']);
});

test.skipIf(!existsSync('/dev/full'))(
  'a full disk for logs ends neither the MCP server, which records calls, nor a wrapper',
  async () => {
    const { env, temp, registry } = await openHome();
    await using opencode = await startFakeOpencode();
    await registry.add({ name: 'one', port: opencode.port });
    const state = join(temp.path, '.local', 'state', 'opencode-mcp');
    await mkdir(join(state, 'logs'), { recursive: true });
    await symlink('/dev/full', join(state, 'record.jsonl'));
    await symlink('/dev/full', join(state, 'logs', 'opencode-connected.log'));
    const { child, exit, stdout, stderr } = start('opencode-mcp', env);
    const getStatus = { name: 'get_status', arguments: { instance: 'one' } };
    const calls = [1, 2, 3].map((id) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: getStatus }));
    child.stdin?.write([...HANDSHAKE, ...calls].map((message) => `${JSON.stringify(message)}\n`).join(''));
    await until('the warning about the record', () => stderr().includes('cannot write the record of calls'));
    await until('every answer', () => calls.every(({ id }) => stdout().includes(`"id":${id}`)));
    expect(stderr()).toContain('ENOSPC');
    child.stdin?.end();
    expect((await exit()).code).toBe(0);
    const withRelay = { ...env, RELAY_SSH_CMD: '/nowhere/ssh relay' };
    expect((await run('opencode-connected --headless', withRelay)).code).toBe(0);
  },
);

describe('a missing secret', () => {
  const NONE = { env: 'NONE' };

  // test/credentials tests all cases.
  test('of a static instance locks that instance with a reason, and stops no program', async () => {
    const { env, temp } = await openHome();
    await using locked = await startFakeOpencode({ password: 'pa55word' });
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    const { url } = locked;
    const config = join(temp.path, 'config.json');
    const instances = [
      { name: 'variable', url, headers: { 'X-Token': NONE } },
      { name: 'command', url, headers: { 'X-Token': { command: ['/bin/false'] } } },
      { name: 'file', url, password: { file: '/nowhere/secret' } },
      { name: 'other', url: other.url },
    ];
    await writeFile(config, JSON.stringify({ instances }), { mode: 0o600 });
    const withStatic = { ...env, TRANSPORT: 'static' };
    const { code, stdout } = await run(`opencode-mcp list --config ${config}`, withStatic);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^other +idle/m);
    for (const name of ['variable', 'command', 'file']) expect(stdout).toMatch(new RegExp(`^${name} +locked`, 'm'));
    expect(stdout).toMatch(/header X-Token: .*variable NONE is not set/);
    expect(stdout).toMatch(/header X-Token: .*\/bin\/false ended/);
    expect(stdout).toMatch(/\/nowhere\/secret: no such file/);
    expect(await run(`opencode-connected status --config ${config}`, env)).toMatchObject({ code: 0, stderr: '' });
  });

  test('that is the default or belongs to a rule locks only the instances that need it', async () => {
    const { env, temp, registry } = await openHome();
    await using locked = await startFakeOpencode({ password: 'pa55word' });
    await using another = await startFakeOpencode({ password: 'pa55word', directory: '/home/user/another' });
    await using other = await startFakeOpencode({ directory: '/home/user/other' });
    await registry.add({ name: 'by-rule', port: locked.port });
    await registry.add({ name: 'by-default', port: another.port, cwd: another.directory });
    await registry.add({ name: 'other', port: other.port, cwd: other.directory });
    const config = join(temp.path, 'config.json');
    const rule = { name: 'by-rule', password: { env: 'OF_RULE' } };
    await writeFile(config, JSON.stringify({ password: NONE, credentials: [rule] }), { mode: 0o600 });
    const { code, stdout } = await run(`opencode-mcp list --config ${config}`, env);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^other +idle/m);
    expect(stdout).toMatch(/^by-rule +locked/m);
    expect(stdout).toMatch(/^by-default +locked/m);
    expect(stdout).toContain('the environment variable NONE is not set');
    expect(stdout).toContain('the environment variable OF_RULE is not set');
  });
});
