import { constants } from 'node:os';
import { Guard } from '../connected/start/guard.ts';
import { rememberTerminal } from '../connected/start/terminal.ts';
import { ServiceTerminal } from '../connected/service/service-terminal.ts';
import type { Launch } from './program.ts';

export interface TerminalRun extends Launch {
  /** Absolute. */
  readonly program: string;
  /** Undefined for this program's own. */
  readonly cwd?: string | undefined;
  readonly process: NodeJS.Process;
  /** Ends the terminal. */
  readonly signal: AbortSignal;
  /** Registers `act` for Ctrl-C. */
  readonly onInterrupt: (act: () => void) => void;
}

/** The terminal sends Ctrl-C to both programs. If opencode still runs after this, it got none, and is sent one. */
const PASS_AFTER_MS = 500;
/** Shells add the signal's number to this for their exit code. */
const EXIT_SIGNAL = 128;

/** Gives the terminal to opencode until it ends, and resolves to its exit code. opencode ends with this program, even if that is killed. */
export async function runInTerminal(run: TerminalRun): Promise<number> {
  const { program, args, env, cwd, signal, onInterrupt } = run;
  const terminal = new ServiceTerminal(rememberTerminal(run.process));
  const guard = new Guard();
  onInterrupt(() => void setTimeout(() => terminal.pass('SIGINT'), PASS_AFTER_MS).unref());
  const stop = (): void => terminal.stop('SIGTERM');
  try {
    const child = await terminal.open(program, args, env, cwd);
    if (child !== undefined) guard.watch('opencode', child);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const { code, signal: ended } = await terminal.ended;
    return code ?? EXIT_SIGNAL + (ended === null ? 0 : constants.signals[ended]);
  } finally {
    signal.removeEventListener('abort', stop);
    guard.dismiss();
  }
}
