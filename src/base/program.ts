import { safeToShow } from './plain-text.ts';

const EXIT_FAILED = 1;
/** The exit code that shells report for a program killed by SIGPIPE, which Node ignores. */
const EXIT_BROKEN_PIPE = 141;

/** An error whose message tells a person what is wrong and what to do. The program prints it and exits with this code. */
export class ReportedError extends Error {
  readonly exitCode: number = EXIT_FAILED;
}

/** Buffered text for stderr, besides the 64 KiB of a pipe; a reader that hangs gets no more. */
const MAX_UNREAD_CHARS = 64 * 1024;

/** The process exits this long after a failure, even if something keeps it alive. */
const END_LIMIT_MS = 1_000;

/** The outputs of a program. None of them throws or waits. */
export interface Output {
  /** Prints a result to stdout. A failure changes the exit code; if the reader has left, without a message. */
  readonly print: (text: string) => void;
  /** As `print`, for text that is already clean and contains our own escape sequences. */
  readonly draw: (text: string) => void;
  /** Writes log lines and messages to stderr, and drops what stderr does not accept. */
  readonly tell: (text: string) => void;
}

/** Runs a program. Any error, also an uncaught one, ends it with one line on stderr and a non-zero exit code. */
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
  // The reader may be gone or the disk full; without a listener that would end the program.
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
    // On exit, because the command sets its own code when it is done.
    process.once('exit', () => (process.exitCode = isGone ? EXIT_BROKEN_PIPE : EXIT_FAILED));
  };
  return (text) => {
    // Only if something is printed: the MCP server handles errors of stdout itself.
    if (!listens) process.stdout.once('error', onError).on('error', () => {});
    listens = true;
    process.stdout.write(text);
  };
}

/** Advice for errors in which Node names only its own function. */
const SYSTEM_ERRORS: ReadonlyMap<unknown, string> = new Map([
  ['uv_cwd', 'the current directory no longer exists; change to another one and run it again'],
  ['uv_os_homedir', 'this user has no home directory (no HOME, no entry in the password database); set HOME'],
]);

/** One line, without a stack. */
function describe(error: unknown): string {
  if (error instanceof ReportedError) return error.message;
  if (!(error instanceof Error)) return `internal error, please report it: ${String(error)}`;
  if ('syscall' in error) return SYSTEM_ERRORS.get(error.syscall) ?? error.message;
  // Any other class, such as TypeError, is a bug in this program: message and place are enough for a report.
  if (error.name === 'Error') return error.message;
  const place = /\n\s+at (.+)/.exec(error.stack ?? '')?.[1];
  return `internal error, please report it: ${error.name}: ${error.message.split('\n', 1)[0]}${place === undefined ? '' : `; in ${place}`}`;
}
