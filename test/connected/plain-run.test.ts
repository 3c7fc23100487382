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

interface Place extends AsyncDisposable {
  readonly temp: TempDir;
  /** One line for each call. */
  calls(): Promise<string>;
  start(...args: readonly string[]): ChildProcess;
}

/** A program that replaces opencode: it records how it is called, and then runs the script. */
async function openPlace(script: string): Promise<Place> {
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

describe('a command line for opencode alone', () => {
  test('runs with its arguments, directory, environment, input, output and exit code', async () => {
    await using place = await openPlace('cat; echo "$npm_config_mine" >&2; exit 7');
    const child = place.start('run', 'two  words', '', '--headless', '--', '--help');
    child.stdin?.end('piped in');
    const [stdout, stderr, [code]] = await Promise.all([
      textOf(child.stdout),
      textOf(child.stderr),
      once(child, 'exit'),
    ]);
    expect({ stdout, stderr, code }).toEqual({ stdout: 'piped in', stderr: 'kept\n', code: 7 });
    // Called once: it is not asked for its version.
    expect(await place.calls()).toBe(`run|two  words||--headless|--|--help|${place.temp.path}|\n`);
  });

  test.each(['SIGTERM', 'SIGHUP', 'SIGINT'] as const)(
    '%s reaches opencode, whose exit code is returned',
    async (signal) => {
      await using place = await openPlace(
        `trap 'echo caught; exit 3' ${signal.slice(3)}; echo ready; while :; do sleep 0.1; done`,
      );
      const child = place.start('serve');
      let output = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
      await until('it to run', () => output.includes('ready'));
      child.kill(signal);
      expect(await within(once(child, 'exit'), () => `it to end by ${signal}`)).toEqual([3, null]);
      expect(output).toContain('caught');
    },
  );

  test('an interrupt at the terminal reaches opencode once', async (context) => {
    needTmux(context);
    await using place = await openPlace('');
    const program = join(place.temp.path, 'opencode');
    // It waits long enough for a second interrupt to arrive.
    const script =
      "let n = 0; process.stdin.resume(); process.on('SIGINT', () => ++n > 1 || setTimeout(() => process.exit(n), 1500));";
    await writeFile(program, `#!${process.execPath}\n${script}\nconsole.log('ready');\n`, { mode: 0o755 });
    const env = { PATH: process.env['PATH'] ?? '', HOME: place.temp.path, OPENCODE_BIN: program };
    await using terminal = await openTmux(env, place.temp.path);
    await terminal.type(`${process.execPath} ${CONNECTED_SCRIPT} serve; echo "code=$?"`, 'Enter');
    await terminal.shows(/^ready/m);
    await terminal.type('', 'C-c');
    expect(await terminal.shows(/code=\d/)).toContain('code=1');
  });

  test('signals are passed on from the start: listeners are there before opencode', async () => {
    const order: string[] = [];
    const onSpawn = (): void => void order.push('spawn');
    subscribe('child_process', onSpawn);
    onTestFinished(() => void unsubscribe('child_process', onSpawn));
    const self = { on: (signal: string) => order.push(signal), off() {} };
    await runPlain('true', [], self as unknown as NodeJS.Process);
    expect(order.indexOf('spawn')).toBe(order.length - 1);
  });

  test('a signal that ends opencode ends this program too', async () => {
    await using place = await openPlace('kill -KILL $$');
    expect(await once(place.start('models'), 'exit')).toEqual([null, 'SIGKILL']);
  });
});

test('--headless serves in the given directory', async () => {
  await using place = await openPlace('exit 0');
  const project = join(place.temp.path, 'project');
  await mkdir(project);
  await once(place.start('--headless', './project'), 'exit');
  expect(await place.calls()).toMatch(
    new RegExp(`^serve\\|--port\\|\\d+\\|--hostname\\|127.0.0.1\\|${project}\\|$`, 'm'),
  );
});

test('without a terminal on standard output it starts nothing and advises --headless', async () => {
  await using place = await openPlace('exit 0');
  const child = place.start('.');
  const [stderr, [code]] = await Promise.all([textOf(child.stderr), once(child, 'exit')]);
  expect(stderr).toContain('standard output is not a terminal');
  expect(stderr).toContain('opencode-connected --headless');
  expect(code).toBe(2);
  expect(await place.calls()).toBe('');
});

test.skipIf(isMissing(PINNED_OPENCODE))('the pinned opencode prints the same through it', async () => {
  await using temp = tempDir('plain-run');
  const options = {
    cwd: temp.path,
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HOME: temp.path, OPENCODE_BIN: PINNED_OPENCODE },
  } as const;
  const args = ['serve', '--no-such-option'];
  const { status, stdout, stderr } = spawnSync(PINNED_OPENCODE, args, options);
  const through = spawnSync(process.execPath, [CONNECTED_SCRIPT, ...args], options);
  expect([through.status, through.stdout, through.stderr]).toEqual([status, stdout, stderr]);
});
