import { safeToShow } from './plain-text.ts';

const EXIT_FAILED = 1;
/** What shells give for a program that SIGPIPE ended. Node ignores that signal, so the code is all that is left of it. */
const EXIT_BROKEN_PIPE = 141;

/** An error whose message is for a person: what is wrong and what to do. The program prints it and ends with this code. */
export class ReportedError extends Error {
  readonly exitCode: number = EXIT_FAILED;
}

/** Text that the reader of stderr has not taken yet. A pipe holds 64 KiB beside it; more log is of no use to a reader that hangs. */
const MAX_UNREAD_CHARS = 64 * 1024;

/** What has not ended by itself so long after the program failed is cut off. */
const END_LIMIT_MS = 1_000;

/** Where a program writes. Neither of them throws or waits. */
export interface Output {
  /** Prints to stdout what was asked for. Where that fails, the exit code says so; a reader that has left is no error to report. */
  readonly print: (text: string) => void;
  /** As `print`, of clean text with escape sequences of ours in it. */
  readonly draw: (text: string) => void;
  /** Writes lines to stderr: the log, and words to a person. What stderr does not take is dropped. */
  readonly tell: (text: string) => void;
}

/**
 * Runs one of the programs. Every error that leaves `main`, now or later, ends it with one line on stderr and an exit code
 * that is not 0.
 */
export async function runProgram(
  name: string,
  process: NodeJS.Process,
  main: (output: Output) => Promise<void>,
): Promise<void> {
  const tell = stderrWriter(process);
  const fail = (error: unknown): void => {
    tell(`${name}: ${describe(error).replaceAll('\n', `\n${name}: `)}\n`);
    process.exitCode = error instanceof ReportedError ? error.exitCode : EXIT_FAILED;
  };
  process.on('uncaughtException', (error) => {
    fail(error);
    process.exit();
  });
  try {
    const draw = stdoutWriter(process, fail);
    await main({ print: (text) => draw(safeToShow(text)), draw, tell });
  } catch (error) {
    fail(error);
    setTimeout(() => process.exit(), END_LIMIT_MS).unref();
  }
}

function stderrWriter({ stderr }: NodeJS.Process): (text: string) => void {
  let dropped = 0;
  // Its reader may be gone or its disk full. Without a listener that would end the program.
  stderr.on('error', () => {});
  return (text) => {
    if (stderr.writableLength > MAX_UNREAD_CHARS) {
      dropped += 1;
      return;
    }
    if (dropped > 0) stderr.write(`${dropped} log lines were dropped, because nobody read them\n`);
    dropped = 0;
    stderr.write(safeToShow(text));
  };
}

function stdoutWriter(process: NodeJS.Process, fail: (error: unknown) => void): (text: string) => void {
  let listens = false;
  const onError = (error: NodeJS.ErrnoException): void => {
    const isGone = error.code === 'EPIPE';
    if (!isGone) fail(new ReportedError(`cannot write to standard output: ${error.message}`));
    // At the end, since the command sets its own code when it is done.
    process.once('exit', () => (process.exitCode = isGone ? EXIT_BROKEN_PIPE : EXIT_FAILED));
  };
  return (text) => {
    // Not before something is printed: the MCP server has another use for stdout, and ends in its own way.
    if (!listens) process.stdout.once('error', onError).on('error', () => {});
    listens = true;
    process.stdout.write(text);
  };
}

/** What a person can do where Node only names its own function. */
const SYSTEM_ERRORS: ReadonlyMap<unknown, string> = new Map([
  ['uv_cwd', 'the current directory does not exist any more; change to one that does and run it again'],
  ['uv_os_homedir', 'this user has no home directory (no HOME, no entry in the password database); set HOME'],
]);

/** One line, without a stack. */
function describe(error: unknown): string {
  if (error instanceof ReportedError) return error.message;
  if (!(error instanceof Error)) return `internal error, please report it: ${String(error)}`;
  if ('syscall' in error) return SYSTEM_ERRORS.get(error.syscall) ?? error.message;
  // Thrown on purpose. What the language throws is a mistake of ours; where is all that a report needs beside the message.
  if (error.name === 'Error') return error.message;
  const place = /\n\s+at (.+)/.exec(error.stack ?? '')?.[1];
  return `internal error, please report it: ${error.name}: ${error.message.split('\n', 1)[0]}${place === undefined ? '' : `; in ${place}`}`;
}
