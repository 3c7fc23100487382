import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { singleLine } from '../base/plain-text.ts';
import { unlessAborted } from '../base/unless-aborted.ts';
import { errorCode } from '../base/errors.ts';

export interface SecretCommands {
  /** The output of the command, from a run less than five minutes ago or a new one. Errors never contain any of it. */
  run(argv: readonly [string, ...string[]], signal: AbortSignal): Promise<string>;
}

export interface SecretCommandsDeps {
  readonly clock: Clock;
  /** Aborts on shutdown, which ends all running commands. */
  readonly signal: AbortSignal;
}

// Long enough not to query a vault or prompt a person at each probe, short enough to pick up a new password.
const KEPT_MS = 5 * 60_000;
// Enough for a request to a vault; a command that waits for an absent person never ends.
const RUN_LIMIT_MS = 10_000;
const MAX_OUTPUT_BYTES = 4096;
const MAX_ERROR_BYTES = 1024;

/**
 * Runs password commands without a shell, keeps their output for five minutes, and shares runs between concurrent calls. Failures
 * are not kept. A run continues when its caller gives up, so that a vault slower than a probe's timeout still works; ten seconds
 * and `deps.signal` end it.
 */
export function createSecretCommands(deps: SecretCommandsDeps): SecretCommands {
  const kept = new Map<string, { readonly output: string; readonly atMs: number }>();
  const running = new Map<string, Promise<string>>();

  const start = async (key: string, argv: readonly [string, ...string[]]): Promise<string> => {
    try {
      const output = await runOnce(argv, deps);
      kept.set(key, { output, atMs: deps.clock.monotonic() });
      return output;
    } finally {
      running.delete(key);
    }
  };

  return {
    async run(argv, signal) {
      signal.throwIfAborted();
      const key = JSON.stringify(argv);
      const known = kept.get(key);
      if (known !== undefined) {
        if (deps.clock.monotonic() - known.atMs < KEPT_MS) return known.output;
        kept.delete(key);
      }
      let run = running.get(key);
      if (run === undefined) {
        run = start(key, argv);
        running.set(key, run);
      }
      return unlessAborted(run, signal);
    },
  };
}

async function runOnce(argv: readonly [string, ...string[]], { clock, signal }: SecretCommandsDeps): Promise<string> {
  const [program] = argv;
  const name = `password command ${singleLine(program, 100)}`;
  signal.throwIfAborted();
  const ended = new AbortController();
  try {
    return await new Promise<string>((resolve, reject) => {
      // Without Node's error as the cause: it contains the arguments, which may be secrets.
      const child = startChild(argv, (code) => reject(new Error(`cannot run the ${name}: ${startFailure(code)}`)));
      if (child === undefined) return;
      const giveUp = (reason: string): void => {
        killGroup(child);
        child.stdout.destroy();
        child.stderr.destroy();
        reject(new Error(`${name} ${reason}`));
      };
      const output = collect(child.stdout, MAX_OUTPUT_BYTES, () =>
        giveUp(`printed more than ${MAX_OUTPUT_BYTES} bytes; let it print only the password`),
      );
      // Reads all of stderr, so that the command does not block.
      const complaint = collect(child.stderr, MAX_ERROR_BYTES, () => {});
      child.on('close', (code, killedBy) => {
        if (code === 0) resolve(output().toString('utf8'));
        else
          reject(
            new Error(
              `${name} ended with ${killedBy ?? `code ${code}`}${firstLine(complaint())}; run it in a shell to see why`,
            ),
          );
      });
      signal.addEventListener('abort', () => giveUp('was stopped: the program is shutting down'), {
        once: true,
        signal: ended.signal,
      });
      void clock.sleep(RUN_LIMIT_MS, ended.signal).then(() => {
        if (!ended.signal.aborted) giveUp(`did not finish within ${RUN_LIMIT_MS / 1000} s; it must not wait for input`);
      });
    });
  } finally {
    ended.abort();
  }
}

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** Undefined if it could not be started. `onError` is called then, and if it fails later. */
function startChild(
  [program, ...args]: readonly [string, ...string[]],
  onError: (code: string) => void,
): Child | undefined {
  try {
    // In its own process group, so that its children can be killed with it.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, windowsHide: true });
    child.on('error', (error) => onError(errorCode(error) ?? error.name));
    return child.pid === undefined ? undefined : child;
  } catch (error) {
    onError(errorCode(error) ?? 'unknown error');
    return undefined;
  }
}

/** Keeps the first `limit` bytes of a stream; `onMore` is called once if there are more. */
function collect(stream: Readable, limit: number, onMore: () => void): () => Buffer {
  const chunks: Buffer[] = [];
  let length = 0;
  stream.on('data', (chunk: Buffer) => {
    if (length > limit) return;
    chunks.push(chunk);
    length += chunk.length;
    if (length > limit) onMore();
  });
  return () => Buffer.concat(chunks).subarray(0, limit);
}

function killGroup(child: Child): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group has ended, or the system has no groups (Windows).
    child.kill('SIGKILL');
  }
}

function startFailure(code: string): string {
  return code === 'ENOENT' ? 'no such program; give its full path or put its folder on PATH' : code;
}

function firstLine(bytes: Buffer): string {
  const [line = ''] = bytes
    .toString('utf8')
    .trim()
    .split(/[\r\n]/, 1);
  const shown = singleLine(line, 200);
  return shown === '' ? '' : `: ${shown}`;
}
