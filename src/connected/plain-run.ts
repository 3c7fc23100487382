import { type ChildProcess, spawn } from 'node:child_process';
import { isatty } from 'node:tty';

import { messageOf } from '../base/errors.ts';
import { ReportedError } from '../base/program.ts';
import type { Ending } from './start/opencode-process.ts';
import { passSignals } from './start/signals.ts';

/** Runs opencode as if this program were not there: with the caller's terminal, pipes and signals, and with opencode's own end. */
export async function runPlain(program: string, args: readonly string[], process: NodeJS.Process): Promise<Ending> {
  let child: ChildProcess | undefined;
  const kill = (signal: NodeJS.Signals): void => void child?.kill(signal);
  // A terminal sends an interrupt to both processes, and a second one may mean more to opencode.
  const pass = [0, 1, 2].some((fd) => isatty(fd)) ? () => {} : kill;
  const signals = passSignals(process, { pass, stop: kill });
  signals.starting();
  try {
    // Not before the listeners for signals: a signal in between would end this process and leave opencode running.
    const started = spawn(program, args, { stdio: 'inherit' });
    child = started;
    return await new Promise((resolve, reject) => {
      started.once('exit', (code, signal) => resolve({ code, signal }));
      started.once('error', (error) => reject(new ReportedError(`cannot start ${program}: ${messageOf(error)}`)));
    });
  } finally {
    signals.stop();
  }
}
