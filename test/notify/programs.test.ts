import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { commandChannel } from '../../src/notify/channels/command.ts';
import { desktopChannel } from '../../src/notify/channels/desktop.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

const NONE = new AbortController().signal;
const QUESTION: Notice = {
  id: 'abcdefghijklmnopqrstuv',
  event: 'question',
  atMs: 0,
  host: 'desk',
  directory: '/home/ada/web',
  session: { id: 'ses_1', title: '--Which color' },
  request: { id: 'que_1', kind: 'question', text: 'Red & <b>Blue</b>? Red | Blue' },
};

let temp: TempDir;
beforeEach(() => {
  temp = tempDir('notify-programs');
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await temp.close();
});

function writeProgram(name: string, lines: readonly string[]): string {
  const path = join(temp.path, name);
  writeFileSync(path, ['#!/bin/sh', ...lines, ''].join('\n'));
  chmodSync(path, 0o700);
  return path;
}

function inTemp(name: string): string {
  return join(temp.path, name);
}

describe('a command', () => {
  const deliver = (argv: readonly [string, ...string[]], clock = systemClock, signal = NONE) =>
    commandChannel({ type: 'command', argv }, 'full', { clock }).deliver(QUESTION, undefined, signal);

  it('gets the notice as a line of JSON on standard input, and gets its arguments unchanged', async () => {
    const path = writeProgram('tell', [`cat > '${inTemp('got')}'`, `printf '%s' "$*" > '${inTemp('arguments')}'`]);
    await deliver([path, '$HOME', 'a b']);
    expect(JSON.parse(readFileSync(inTemp('got'), 'utf8'))).toMatchObject({
      id: QUESTION.id,
      event: 'question',
      request: QUESTION.request,
    });
    expect(readFileSync(inTemp('arguments'), 'utf8')).toBe('$HOME a b');
  });

  it('may read nothing and print much', async () => {
    await deliver([writeProgram('loud', ['exec 0<&-', 'yes | head -c 2000000'])]);
  });

  it('that fails is a failed delivery, with its error output as the reason', async () => {
    const path = writeProgram('broken', ['echo "no route" >&2', 'exit 3']);
    await expect(deliver([path, 's3cret'])).rejects.toMatchObject({
      kind: 'failed',
      message: `${path} ended with code 3; it says "no route"`,
    });
  });

  it('that is missing is a failed delivery', async () => {
    await expect(deliver([inTemp('missing')])).rejects.toMatchObject({ kind: 'failed' });
  });

  it('that hangs is killed with its children', async () => {
    const clock = new ManualClock();
    const path = writeProgram('hang', [`echo $$ > '${inTemp('pid')}'`, 'sleep 600 & sleep 600']);
    const delivery = deliver([path], clock);
    const failed = expect(delivery).rejects.toThrow('did not end within 15 s');
    await until(
      'the command to run',
      () => existsSync(inTemp('pid')) && readFileSync(inTemp('pid'), 'utf8').includes('\n'),
    );
    await clock.advance(15_000);
    await settle();
    await failed;
    const group = Number(readFileSync(inTemp('pid'), 'utf8'));
    await until('its process group to end', () => !isRunning(-group));
  });

  it('may leave a process running in the background', async () => {
    execFileSync('mkfifo', [inTemp('go')]);
    const path = writeProgram('forks', [
      `{ read line < '${inTemp('go')}'; : > '${inTemp('done')}'; } > /dev/null 2>&1 &`,
    ]);
    await deliver([path]);
    // Opening a FIFO for both reading and writing does not block.
    await writeFile(inTemp('go'), 'now\n', { flag: 'r+' });
    await until('the background work to be done', () => existsSync(inTemp('done')));
  });

  it('is ended by the signal of the delivery', async () => {
    const abort = new AbortController();
    const path = writeProgram('long', [`: > '${inTemp('runs')}'`, 'sleep 600']);
    const delivery = deliver([path], systemClock, abort.signal);
    const failed = expect(delivery).rejects.toThrow('was stopped');
    await until('the command to run', () => existsSync(inTemp('runs')));
    abort.abort();
    await failed;
  });
});

/** There is no desktop here, so a fake `notify-send` on PATH records its arguments. */
describe('the desktop channel', () => {
  const deliver = (notice: Notice, replaces?: string) =>
    desktopChannel('full', { clock: systemClock }).deliver(notice, replaces, NONE);

  function fakeNotifySend(printed: string): void {
    writeProgram('notify-send', [`printf '%s\\n' "$@" > '${inTemp('arguments')}'`, `echo '${printed}'`]);
    vi.stubEnv('PATH', `${temp.path}${delimiter}${process.env['PATH'] ?? ''}`);
  }

  it('shows options and markup as plain text, and returns the ID to replace the notification', async () => {
    fakeNotifySend('17');
    expect(await deliver(QUESTION)).toEqual({ replaces: '17' });
    expect(readFileSync(inTemp('arguments'), 'utf8').split('\n')).toEqual([
      '--app-name=opencode',
      '--urgency=critical',
      '--print-id',
      '--',
      'Question: --Which color',
      'Red &amp; &lt;b&gt;Blue&lt;/b&gt;? Red | Blue',
      'desk /home/ada/web',
      '',
    ]);
  });

  it('replaces the notification with the given ID', async () => {
    fakeNotifySend('17');
    await deliver({ ...QUESTION, event: 'settled' }, '17');
    const argv = readFileSync(inTemp('arguments'), 'utf8').split('\n');
    expect(argv).toEqual(expect.arrayContaining(['--replace-id=17', '--urgency=low']));
  });

  it('reports itself as absent without notify-send', async () => {
    vi.stubEnv('PATH', temp.path);
    await expect(deliver(QUESTION)).rejects.toMatchObject({
      kind: 'absent',
      message: expect.stringContaining('install libnotify') as string,
    });
  });
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
