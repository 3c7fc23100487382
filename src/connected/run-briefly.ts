import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { messageOf } from '../base/errors.ts';
import { signalIfThere } from './process-table.ts';

/** What was printed before the end is read in milliseconds. */
const LAST_WORDS_MS = 1_000;
/** Far more than a version or an error has. */
const MAX_OUTPUT_CHARS = 10_000;

export interface BriefRunLimits {
  readonly limitMs: number;
  /** What does not end in time is ended with all that it started, which must then be nothing that is to stay. */
  readonly signalsAll: boolean;
  /** What it reads; else its standard input is empty. */
  readonly input?: string;
  /** The last characters of its output that are kept; default 10,000. With `signalsAll`, one that prints more is ended. */
  readonly maxOutputChars?: number;
  /** Ends it as the limit does. */
  readonly signal?: AbortSignal;
}

export interface BriefRun {
  /** Undefined where it could not be run or was ended. */
  readonly code: number | undefined;
  /** It did not end in time. */
  readonly isLate: boolean;
  readonly output: string;
  readonly errors: string;
  /** Why it could not be started. */
  readonly startError?: unknown;
}

/**
 * Runs a program that is to end soon, and ends it when it does not. Its end counts, not that of its output: a service that it
 * leaves behind may hold that open. Never rejects.
 */
export function runBriefly(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { limitMs, signalsAll, input, maxOutputChars = MAX_OUTPUT_CHARS, signal }: BriefRunLimits,
): Promise<BriefRun> {
  return new Promise((resolve) => {
    let output = '';
    let errors = '';
    let isLate = false;
    let child: ChildProcessWithoutNullStreams;
    try {
      // A session of its own: an interrupt at this terminal must not reach the service that it may start.
      child = spawn(program, args, { env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    } catch (error) {
      // Where the path goes through a file, or is too long, there is no event.
      resolve({ code: undefined, isLate, output, errors: messageOf(error), startError: error });
      return;
    }
    // Where it reads nothing of it: its end says why.
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
      if (output.length > maxOutputChars && signalsAll) kill();
      output = output.slice(-maxOutputChars);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-MAX_OUTPUT_CHARS)));
    child.once('error', (error) => {
      errors = messageOf(error);
      settle(undefined, error);
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
