import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, expect, onTestFinished, test } from 'vitest';

import { runPlain } from '../../src/connected/plain-run.ts';

import { CONNECTED_SCRIPT } from '../rig/programs/connected-child.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { needTmux, openTmux } from '../rig/programs/tmux.ts';
import { until, within } from '../rig/wait.ts';

interface FakeOpencode extends AsyncDisposable {
  readonly temp: TempDir;
  /** The recorded calls, one per line. */
  calls(): Promise<string>;
  start(...args: readonly string[]): ChildProcess;
}

/** A program that replaces opencode: it records how it is called, and then runs the script. */
async function installFakeOpencode(script: string): Promise<FakeOpencode> {
  const temp = tempDir('plain-run');
  const program = join(temp.path, 'opencode');
  const log = join(temp.path, 'calls');
  await writeFile(program, `#!/bin/sh\nprintf '%s|' "$@" "$PWD" >>'${log}'; echo >>'${log}'\n${script}\n`, {
    mode: 0o755,
  });
  return {
    temp,
    calls: () => readFile(log, 'utf8').catch(() => ''),
    start: (...args) =>
      spawn(process.execPath, [CONNECTED_SCRIPT, ...args], {
        cwd: temp.path,
        env: { PATH: process.env['PATH'], HOME: temp.path, OPENCODE_BIN: program, npm_config_mine: 'kept' },
        stdio: ['pipe', 'pipe', 'pipe'],
      }),
    [Symbol.asyncDispose]: () => temp.close(),
  };
}

async function textOf(stream: NodeJS.ReadableStream | null): Promise<string> {
  let text = '';
  for await (const chunk of stream ?? []) text += String(chunk);
  return text;
}

describe('a command that opencode-connected passes to opencode', () => {
  test('runs with its arguments, directory, environment, input, output and exit code', async () => {
    await using fake = await installFakeOpencode('cat; echo "$npm_config_mine" >&2; exit 7');
    const child = fake.start('run', 'two  words', '', '--headless', '--', '--help');
    child.stdin?.end('piped in');
    const [stdout, stderr, [code]] = await Promise.all([
      textOf(child.stdout),
      textOf(child.stderr),
      once(child, 'exit'),
    ]);
    expect({ stdout, stderr, code }).toEqual({ stdout: 'piped in', stderr: 'kept\n', code: 7 });
    // opencode ran once: the wrapper did not also run `opencode --version`.
    expect(await fake.calls()).toBe(`run|two  words||--headless|--|--help|${fake.temp.path}|\n`);
  });

  test.each(['SIGTERM', 'SIGHUP', 'SIGINT'] as const)(
    '%s reaches opencode, whose exit code is returned',
    async (signal) => {
      await using fake = await installFakeOpencode(
        `trap 'echo caught; exit 3' ${signal.slice(3)}; echo ready; while :; do sleep 0.1; done`,
      );
      const child = fake.start('serve');
      let output = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
      await until('opencode to run', () => output.includes('ready'));
      child.kill(signal);
      expect(await within(once(child, 'exit'), () => `opencode-connected to exit after ${signal}`)).toEqual([3, null]);
      expect(output).toContain('caught');
    },
  );

  test('an interrupt at the terminal reaches opencode once', async (context) => {
    needTmux(context);
    await using fake = await installFakeOpencode('');
    const program = join(fake.temp.path, 'opencode');
    // Exits late enough that a second interrupt would be counted.
    const script =
      "let n = 0; process.stdin.resume(); process.on('SIGINT', () => ++n > 1 || setTimeout(() => process.exit(n), 1500));";
    await writeFile(program, `#!${process.execPath}\n${script}\nconsole.log('ready');\n`, { mode: 0o755 });
    const env = { PATH: process.env['PATH'] ?? '', HOME: fake.temp.path, OPENCODE_BIN: program };
    await using terminal = await openTmux(env, fake.temp.path);
    await terminal.type(`${process.execPath} ${CONNECTED_SCRIPT} serve; echo "code=$?"`, 'Enter');
    await terminal.shows(/^ready/m);
    await terminal.type('', 'C-c');
    expect(await terminal.shows(/code=\d/)).toContain('code=1');
  });

  test('signal listeners are installed before opencode is spawned', async () => {
    const order: string[] = [];
    const onSpawn = (): void => void order.push('spawn');
    subscribe('child_process', onSpawn);
    onTestFinished(() => void unsubscribe('child_process', onSpawn));
    const signalRecorder = { on: (signal: string) => order.push(signal), off() {} };
    await runPlain('true', [], signalRecorder as unknown as NodeJS.Process);
    expect(order.indexOf('spawn')).toBe(order.length - 1);
  });

  test('opencode-connected ends by the same signal as opencode', async () => {
    await using fake = await installFakeOpencode('kill -KILL $$');
    expect(await once(fake.start('models'), 'exit')).toEqual([null, 'SIGKILL']);
  });
});

test('--headless serves in the given directory', async () => {
  await using fake = await installFakeOpencode('exit 0');
  const project = join(fake.temp.path, 'project');
  await mkdir(project);
  await once(fake.start('--headless', './project'), 'exit');
  expect(await fake.calls()).toMatch(
    new RegExp(`^serve\\|--port\\|\\d+\\|--hostname\\|127.0.0.1\\|${project}\\|$`, 'm'),
  );
});

test('without a terminal on standard output opencode-connected starts nothing and advises --headless', async () => {
  await using fake = await installFakeOpencode('exit 0');
  const child = fake.start('.');
  const [stderr, [code]] = await Promise.all([textOf(child.stderr), once(child, 'exit')]);
  expect(stderr).toContain('standard output is not a terminal');
  expect(stderr).toContain('opencode-connected --headless');
  expect(code).toBe(2);
  expect(await fake.calls()).toBe('');
});

test.skipIf(isMissing(PINNED_OPENCODE))(
  'the pinned opencode prints the same through opencode-connected as alone',
  async () => {
    await using temp = tempDir('plain-run');
    const options = {
      cwd: temp.path,
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], HOME: temp.path, OPENCODE_BIN: PINNED_OPENCODE },
    } as const;
    const args = ['serve', '--no-such-option'];
    const { status, stdout, stderr } = spawnSync(PINNED_OPENCODE, args, options);
    const wrapped = spawnSync(process.execPath, [CONNECTED_SCRIPT, ...args], options);
    expect([wrapped.status, wrapped.stdout, wrapped.stderr]).toEqual([status, stdout, stderr]);
  },
);
