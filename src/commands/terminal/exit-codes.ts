import { QueryError } from '../../fleet/fleet.ts';
import { NotSentError } from '../../operations/answer.ts';

/** The exit codes of a command; `opencode-mcp help` lists them. 2 is a `SettingsError`. */
export const EXIT = {
  done: 0,
  /** Or aborted, or not found. */
  failed: 1,
  /** The agent waits for a permission or an answer. */
  waiting: 3,
  /** The instance is busy or cannot be reached: the same message may be sent again. */
  notSent: 4,
  /** It still runs: the time limit passed, or the person stopped following. The code of coreutils' `timeout`. */
  running: 124,
} as const;
export type Exit = (typeof EXIT)[keyof typeof EXIT];

/** The exit code for a turn's `outcome`. */
export function exitOf(outcome: string): Exit {
  switch (outcome) {
    case 'completed':
    case 'idle':
      return EXIT.done;
    case 'waiting':
      return EXIT.waiting;
    case 'running':
    case 'retrying':
    case 'stalled':
      return EXIT.running;
    default:
      return EXIT.failed;
  }
}

/** A message that named no instance was not sent either, but sending it again would not help. */
export function exitOfError(error: unknown): Exit {
  return error instanceof NotSentError && !(error.cause instanceof QueryError) ? EXIT.notSent : EXIT.failed;
}
