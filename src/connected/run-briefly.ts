import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { messageOf } from '../base/errors.ts';
import { signalIfThere } from './process-table.ts';

const LAST_WORDS_MS = 1_000;
/** Far more than a version or an error message has. */
const MAX_OUTPUT_CHARS = 10_000;

export interface BriefRunLimits {
  readonly limitMs: number;
  /** Kill also what it has started, which must not be meant to stay. */
  readonly signalsAll: boolean;
  /** Its standard input; default empty. */
  readonly input?: string;
  /** How many of its last characters are kept; default 10,000. With `signalsAll`, a program that prints more is killed. */
  readonly maxOutputChars?: number;
  /** It may print any amount. */
  readonly mayPrintMore?: boolean;
  readonly signal?: AbortSignal;
}

export interface BriefRun {
  /** Undefined if it could not be run, or was killed. */
  readonly code: number | undefined;
  readonly isLate: boolean;
  readonly output: string;
  readonly errors: string;
  readonly startError?: unknown;
}

/**
 * Runs a program that should end soon, and kills it if it does not. Waits for the program's end, not for that of its output, which
 * a service that it leaves behind may hold open. Never rejects.
 */
export function runBriefly(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { limitMs, signalsAll, input, maxOutputChars = MAX_OUTPUT_CHARS, mayPrintMore = false, signal }: BriefRunLimits,
): Promise<BriefRun> {
  return new Promise((resolve) => {
    let output = '';
    let errors = '';
    let isLate = false;
    let child: ChildProcessWithoutNullStreams;
    try {
      // In a session of its own: an interrupt at this terminal must not reach a service that it starts.
      child = spawn(program, args, { env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    } catch (error) {
      // There is no event if the path leads through a file, or is too long.
      resolve({ code: undefined, isLate, output, errors: messageOf(error), startError: error });
      return;
    }
    // It may not read it; how it ended says why.
    child.stdin.on('error', () => {}).end(input);
    const kill = (): void => {
      if (child.pid !== undefined) signalIfThere(signalsAll ? -child.pid : child.pid, 'SIGKILL');
    };
    const late = setTimeout(() => {
      isLate = true;
      kill();
    }, limitMs);
    if (signal?.aborted === true) kill();
    signal?.addEventListener('abort', kill, { once: true });
    const settle = (code: number | undefined, startError?: unknown): void => {
      clearTimeout(late);
      signal?.removeEventListener('abort', kill);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code, isLate, output, errors, ...(startError !== undefined && { startError }) });
    };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > maxOutputChars && signalsAll && !mayPrintMore) kill();
      output = output.slice(-maxOutputChars);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-MAX_OUTPUT_CHARS)));
    child.once('error', (error) => {
      errors = messageOf(error);
      settle(undefined, error);
    });
    child.once('exit', (code) => {
      // The last output is still on its way. A service that it started may hold the output open longer.
      const read = setTimeout(() => settle(code ?? undefined), LAST_WORDS_MS);
      child.once('close', () => {
        clearTimeout(read);
        settle(code ?? undefined);
      });
    });
  });
}
