import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { identifyProcess } from '../../../src/connected/process-table.ts';
import { readRunStates, type RunState } from '../../../src/connected/run-state.ts';
import { childEnvironment } from '../../../src/connected/start/child-environment.ts';
import { checkInstanceName } from '../../../src/connected/start/instance-name.ts';
import { defaultName } from '../../../src/identity/default-name.ts';
import { fileLogger, logPath } from '../../../src/connected/start/log-file.ts';
import { findOpencode } from '../../../src/connected/start/opencode-program.ts';
import { choosePort, HIGHEST_PORT, listenerOn, LOWEST_PORT } from '../../../src/connected/start/port.ts';
import { OwnRegistrations, type RegistrationsOptions } from '../../../src/connected/start/registrations.ts';
import { RunStateWriter } from '../../../src/connected/start/run-state-writer.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { tempDir } from '../../rig/temp.ts';

function tempFolder(): string {
  const temp = tempDir('connected-parts');
  onTestFinished(() => temp.close());
  return temp.path;
}

describe("opencode's environment", () => {
  test("is the user's, with the password of this start and without the variables of a package manager", () => {
    const env = {
      PATH: '/bin',
      OPENCODE_CONFIG: '/c',
      npm_config_registry: 'x',
      npm_package_name: 'x',
      npm_lifecycle_event: 'x',
      npx_anything: 'x',
      pnpm_config_x: 'x',
      INIT_CWD: '/x',
      NPM_TOKEN: 'kept',
      OPENCODE_SERVER_PASSWORD: 'other',
      OPENCODE_SERVER_USERNAME: 'other',
      EMPTY: undefined,
    };
    const kept = { PATH: '/bin', OPENCODE_CONFIG: '/c', NPM_TOKEN: 'kept' };
    expect(childEnvironment(env, 'secret')).toEqual({ ...kept, OPENCODE_SERVER_PASSWORD: 'secret' });
    expect(childEnvironment(env, undefined)).toEqual(kept);
  });
});

describe('a name', () => {
  test.each([
    ['laptop.local', '/home/me/my project', 'laptop-my-project'],
    ['laptop', '/home/me/it\'s "x" $(y)\n', 'laptop-it-s-x-y'],
    ['laptop', '/home/me/目录', 'laptop-目录'],
    ['laptop', '/', 'laptop'],
    ['', '/', 'opencode'],
    ['laptop', '/..hidden..', 'laptop-hidden'],
    ['laptop', `/${'x'.repeat(300)}`, `laptop-${'x'.repeat(40)}`],
  ])('on host %j in %j is %j', (host, directory, expected) => {
    expect(defaultName(host, directory)).toBe(expected);
    expect(checkInstanceName(expected)).toBe(expected);
  });

  test.each([
    ['a/b', 'without slashes'],
    ['a\\b', 'without slashes'],
    ['..', 'does not start with a dot'],
    ['-n', 'does not start with a dash'],
    ['a\nb', 'without control or invisible characters'],
    ['a\u202eb', 'without control or invisible characters'],
    [' a', 'without spaces around it'],
    ['x'.repeat(101), 'at most 100 characters'],
    ['目'.repeat(80), 'and 200 bytes'],
  ])('%j is refused', (name, reason) => {
    expect(() => checkInstanceName(name)).toThrow(reason);
  });
});

describe('the opencode program', () => {
  async function writeProgram(path: string, mode = 0o755): Promise<string> {
    await writeFile(path, '#!/bin/sh\n');
    await chmod(path, mode);
    return path;
  }

  test('is the first executable of its name on PATH; relative and empty entries do not count', async () => {
    const [first, second] = [tempFolder(), tempFolder()];
    await writeProgram(join(first, 'opencode'), 0o644);
    const found = await writeProgram(join(second, 'opencode'));
    await mkdir(join(first, 'opencode-dir'));
    expect(await findOpencode('opencode', `:.:relative:${first}:${second}`)).toBe(found);
    await expect(findOpencode('opencode-dir', first)).rejects.toThrow('there is no opencode-dir on PATH; install it');
    await expect(findOpencode('opencode', undefined)).rejects.toThrow('set OPENCODE_BIN');
  });

  test('is the configured path, if it is executable', async () => {
    const path = await writeProgram(join(tempFolder(), 'mine'));
    expect(await findOpencode(path, '')).toBe(path);
    await chmod(path, 0o644);
    await expect(findOpencode(path, '')).rejects.toThrow('OPENCODE_BIN');
  });
});

describe('a chosen port', () => {
  /** Every port of the range except these. */
  const allBut = (...ports: readonly number[]): Set<number> => {
    const range = Array.from({ length: HIGHEST_PORT - LOWEST_PORT + 1 }, (_, index) => LOWEST_PORT + index);
    return new Set(range.filter((port) => !ports.includes(port)));
  };

  test('is in the range, has no listener, is not in use, and is not refused by fetch', async () => {
    const port = await choosePort('127.0.0.1');
    expect(port).toBeGreaterThanOrEqual(LOWEST_PORT);
    expect(port).toBeLessThanOrEqual(HIGHEST_PORT);
    expect(await listenerOn(port)).toBe('none');
    const listener = await listenHttp(() => {}, port);
    onTestFinished(() => listener.close());
    expect(await listenerOn(port)).toBe('some');
    await expect(choosePort('127.0.0.1', allBut(port, 4190))).rejects.toThrow(
      `every port from ${LOWEST_PORT} to ${HIGHEST_PORT} is in use`,
    );
  });
});

describe('the log file', () => {
  test('has time and pid in each line', async () => {
    const path = logPath(join(tempFolder(), 'state'));
    const logger = fileLogger(path, () => 0);
    logger.log('info', 'two\nlines', { name: 'x' });
    logger.log('debug', 'not kept');
    expect(await readFile(path, 'utf8')).toBe(`1970-01-01T00:00:00.000Z ${process.pid} info two lines name="x"\n`);
  });

  test('causes no error if it cannot be written', async () => {
    const file = join(tempFolder(), 'file');
    await writeFile(file, '');
    expect(() => fileLogger(join(file, 'log')).log('info', 'x')).not.toThrow();
  });
});

describe('the state file', () => {
  const state: RunState = {
    id: 'abc',
    name: 'app',
    pid: process.pid,
    opencodePid: 2,
    port: 4096,
    directory: '/p',
    registryFile: '/r/app.json',
    logFile: '/l',
    startedAt: '2026-01-01T00:00:00.000Z',
    version: '0.1.0',
  };

  test('is readable for status; the last write wins, and remove deletes it', async () => {
    const stateDir = join(tempFolder(), 'state');
    const writer = new RunStateWriter(stateDir, 'abc', silentLogger);
    const relay = { kind: 'connected', port: 1, name: 'app' } as const;
    await Promise.all([writer.write(state), writer.write({ ...state, relay })]);
    expect(await readRunStates(stateDir)).toMatchObject([{ isRunning: true, state: { relay: { port: 1 } } }]);
    await Promise.all([writer.write(state), writer.remove()]);
    expect(await readRunStates(stateDir)).toEqual([]);
  });

  test('causes a log line if it cannot be written', async () => {
    const file = join(tempFolder(), 'file');
    await writeFile(file, '');
    const lines: string[] = [];
    await new RunStateWriter(file, 'abc', { log: (_, message) => void lines.push(message) }).write(state);
    expect(lines).toEqual(['cannot keep the state file']);
  });
});

describe('the registrations', () => {
  const lines: string[] = [];

  async function connectAndClose(
    stateHome: string,
    explicit: boolean,
    extra: Partial<RegistrationsOptions> = {},
    giveUp = new AbortController().signal,
  ) {
    const registryDir = { path: join(stateHome, 'default'), explicit };
    const registrations = new OwnRegistrations({
      settings: { registryDir, stateDir: stateHome, connected: { relayRegistryDir: registryDir } },
      sshCommand: undefined,
      id: 'id-one',
      name: 'web',
      password: undefined,
      relayPassword: undefined,
      onLan: false,
      logger: silentLogger,
      onSsh: () => {},
      tell: (line) => void lines.push(line),
      ...extra,
    });
    onTestFinished(() => registrations.close());
    lines.length = 0;
    await registrations.connect({ own: 4096, tunnel: 4096 }, giveUp);
    lines.push('connected');
    await registrations.close();
  }

  test('report a registry directory that older versions do not read, with advice', async () => {
    const stateHome = tempFolder();
    vi.stubEnv('XDG_STATE_HOME', stateHome);
    onTestFinished(() => void vi.unstubAllEnvs());
    const registry = join(stateHome, 'opencode-mcp', 'registry');
    await connectAndClose(stateHome, false);
    expect(lines).toEqual(['connected']);
    await mkdir(registry, { recursive: true, mode: 0o700 });
    await connectAndClose(stateHome, false);
    expect(lines).toEqual([
      `registers on this machine in ${registry}; an older opencode-mcp there looks only in ${join(stateHome, 'default')}: upgrade it, or set its RELAY_REGISTRY_DIR to that`,
      'connected',
    ]);
    await connectAndClose(stateHome, true);
    expect(lines).toEqual(['connected']);
  });

  test('report a changed name, and why a registration failed', async () => {
    const stateHome = tempFolder();
    await mkdir(join(stateHome, 'default'), { mode: 0o700 });
    const { started = '-' } = (await identifyProcess(process.pid)) ?? {};
    await writeFile(join(stateHome, 'default', '.web.claim'), `other ${process.pid} ${started} ${hostname()}\n`);
    await connectAndClose(stateHome, true);
    expect(lines).toEqual(['another running instance is named web; this one is web-2', 'connected']);
    await mkdir(join(stateHome, 'open', 'default'), { recursive: true });
    await chmod(join(stateHome, 'open', 'default'), 0o777);
    await connectAndClose(join(stateHome, 'open'), true);
    expect(lines).toEqual([
      expect.stringMatching(
        /^not registered on this machine \(.*\): .* can be written by its group or by others .*; trying again in the background$/,
      ),
      'connected',
    ]);
  });

  test('wait for the interrupt that ended ssh, so that it is not passed on to opencode', async () => {
    const interrupt = new AbortController();
    const tell = (line: string): void => {
      if (!line.startsWith('no connection to the relay')) return;
      setImmediate(() => {
        lines.push('interrupted');
        interrupt.abort();
      });
    };
    await connectAndClose(tempFolder(), true, { sshCommand: ['sh', '-c', 'kill -INT $$'], tell }, interrupt.signal);
    expect(lines).toEqual(['interrupted', 'connected']);
  });
});
