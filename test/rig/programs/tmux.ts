import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import type { TestContext } from 'vitest';

import { missingProgram, skipFor } from '../needed.ts';
import { until } from '../wait.ts';

const run = promisify(execFile);

/** opencode draws seconds after it answers; a cold start on a shared machine took a minute. */
const SHOW_LIMIT_MS = 100_000;

/** A terminal in tmux, which shows and takes text as a person's terminal does. */
export interface TmuxTerminal extends AsyncDisposable {
  /** The screen as text. */
  screen(): Promise<string>;
  /** Types text, then keys by their tmux names (`Enter`, `C-c`). */
  type(text: string, ...keys: readonly string[]): Promise<void>;
  resize(columns: number, rows: number): Promise<void>;
  /** Resolves with the screen once it matches. */
  shows(pattern: RegExp): Promise<string>;
  close(): Promise<void>;
}

/** Skips the test if tmux is missing. Call it in the first line. */
export function needTmux(context: TestContext): void {
  skipFor(context, missingProgram('tmux', '-V'));
}

/** Opens a shell in a terminal of 100 by 30, with only `env` in its environment. `prefix` is a command that runs the shell elsewhere, such as `ip netns exec …`. */
export async function openTmux(
  env: Readonly<Record<string, string>>,
  directory: string,
  prefix: readonly string[] = [],
): Promise<TmuxTerminal> {
  const socket = `opencode-rig-${randomUUID()}`;
  const tmux = (...args: readonly string[]): Promise<{ stdout: string }> =>
    run('tmux', ['-u', '-L', socket, '-f', '/dev/null', ...args], { env: { PATH: process.env['PATH'] ?? '' } });
  const values = Object.entries({ ...env, PS1: '$ ' }).map(([name, value]) => `${name}=${value}`);
  const shell = [...prefix, 'env', '-i', ...values, 'bash', '--norc', '--noprofile'];
  await tmux('new-session', '-d', '-x', '100', '-y', '30', '-c', directory, '--', ...shell);
  const screen = async (): Promise<string> => (await tmux('capture-pane', '-p')).stdout;
  const close = async (): Promise<void> => void (await tmux('kill-server').catch(() => {}));
  // Text typed before the prompt shows twice.
  await until('a prompt', async () => (await screen()).includes('$'), SHOW_LIMIT_MS);
  return {
    screen,
    async type(text, ...keys) {
      if (text !== '') await tmux('send-keys', '-l', '--', text);
      if (keys.length > 0) await tmux('send-keys', ...keys);
    },
    async resize(columns, rows) {
      await tmux('resize-window', '-x', String(columns), '-y', String(rows));
    },
    async shows(pattern) {
      let last = '';
      return until(
        `the screen to show ${pattern}`,
        async () => {
          last = await screen();
          return pattern.test(last) ? last : undefined;
        },
        SHOW_LIMIT_MS,
      ).catch((error: unknown) => {
        throw new Error(`the screen shows:\n${last}`, { cause: error });
      });
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
