import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { Clock } from '../../base/clock.ts';
import { errorCode, messageOf } from '../../base/errors.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { singleLine } from '../../base/plain-text.ts';
import { DELIVERY_LIMIT_MS, DeliveryError, saidSuffix } from './channel.ts';

const LAST_WORDS_MS = 1_000;
const MAX_OUTPUT_CHARS = 4_096;

export interface BoundedRun {
  readonly argv: readonly [string, ...string[]];
  readonly input: string;
}

/**
 * Runs a program without a shell and returns the beginning of its output. After the time limit it is killed with all its children.
 * @throws {DeliveryError} it cannot be run, or ended with a code other than 0
 */
export async function runBounded(
  { argv: [program, ...args], input }: BoundedRun,
  clock: Clock,
  signal: AbortSignal,
): Promise<string> {
  // The arguments may be secrets, so they are not named.
  const name = singleLine(program, 100);
  const over = new LinkedAbort(signal);
  try {
    return await new Promise<string>((resolve, reject) => {
      const fail = (kind: DeliveryError['kind'], reason: string): void =>
        reject(new DeliveryError(kind, `${name} ${reason}`));
      const onError = (error: unknown): void => {
        const isMissing = errorCode(error) === 'ENOENT';
        if (isMissing) fail('absent', 'cannot be run: no such program; give its full path or put its folder on PATH');
        else fail('failed', `cannot be run: ${errorCode(error) ?? messageOf(error)}`);
      };
      let child: ChildProcessWithoutNullStreams;
      try {
        // Its own process group, so that its children can be killed with it.
        child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true, windowsHide: true });
      } catch (error) {
        onError(error);
        return;
      }
      const giveUp = (reason: string): void => {
        // Processes that an ended program left in the background may stay.
        if (child.exitCode !== null || child.signalCode !== null) return;
        killGroup(child);
        fail('failed', reason);
      };
      child.once('error', onError);
      // A program may end without reading its input; its exit code shows whether that was a failure.
      child.stdin.on('error', () => {}).end(input);
      const output = collect(child.stdout);
      const complaint = collect(child.stderr);
      child.once('exit', (code, killedBy) => {
        const settle = (): void => {
          if (code === 0) resolve(output());
          else fail('failed', `ended with ${killedBy ?? `code ${code}`}${saidSuffix(complaint())}`);
        };
        // Its last output may still arrive; a child that outlives it may hold the pipe open forever.
        child.once('close', settle);
        void clock.sleep(LAST_WORDS_MS, over.signal).then(settle);
      });
      over.signal.addEventListener('abort', () => giveUp('was stopped'), { once: true });
      void clock.sleep(DELIVERY_LIMIT_MS, over.signal).then(() => {
        if (!over.signal.aborted) giveUp(`did not end within ${DELIVERY_LIMIT_MS / 1_000} s`);
      });
    });
  } finally {
    over.end();
  }
}

/** The beginning of a stream; the rest is read and dropped, so that the program never blocks on a full pipe. */
function collect(stream: ChildProcessWithoutNullStreams['stdout']): () => string {
  let text = '';
  stream.setEncoding('utf8').on('data', (piece: string) => {
    if (text.length < MAX_OUTPUT_CHARS) text += piece;
  });
  return () => text;
}

function killGroup(child: ChildProcessWithoutNullStreams): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The group is gone already, or the system has no groups (Windows).
    child.kill('SIGKILL');
  }
}
