import { spawn } from 'node:child_process';
import { messageOf } from '../../base/errors.ts';
import { signalIfThere } from '../process-table.ts';

/** What was printed before the end is read in milliseconds. */
const LAST_WORDS_MS = 1_000;
/** Far more than a version or an error has. */
const MAX_OUTPUT_CHARS = 10_000;

export interface BriefRunLimits {
  readonly limitMs: number;
  /** What does not end in time is ended with all that it started, which must then be nothing that is to stay. */
  readonly signalsAll: boolean;
}

export interface BriefRun {
  /** Undefined where it could not be run or was ended. */
  readonly code: number | undefined;
  /** It did not end in time. */
  readonly isLate: boolean;
  readonly output: string;
  readonly errors: string;
}

/**
 * Runs a program that is to end soon, and ends it when it does not. Its end counts, not that of its output: a service that it
 * leaves behind may hold that open. Never rejects.
 */
export function runBriefly(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { limitMs, signalsAll }: BriefRunLimits,
): Promise<BriefRun> {
  return new Promise((resolve) => {
    let output = '';
    let errors = '';
    let isLate = false;
    // A session of its own: an interrupt at this terminal must not reach the service that it may start.
    const child = spawn(program, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const late = setTimeout(() => {
      isLate = true;
      if (child.pid !== undefined) signalIfThere(signalsAll ? -child.pid : child.pid, 'SIGKILL');
    }, limitMs);
    const settle = (code: number | undefined): void => {
      clearTimeout(late);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code, isLate, output, errors });
    };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-MAX_OUTPUT_CHARS)));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-MAX_OUTPUT_CHARS)));
    child.once('error', (error) => {
      errors = messageOf(error);
      settle(undefined);
    });
    child.once('exit', (code) => {
      // What it printed last is still on its way; what holds the output open longer is something that stays.
      const read = setTimeout(() => settle(code ?? undefined), LAST_WORDS_MS);
      child.once('close', () => {
        clearTimeout(read);
        settle(code ?? undefined);
      });
    });
  });
}
