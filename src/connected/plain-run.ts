import { spawn } from 'node:child_process';
import { isatty } from 'node:tty';

import { messageOf } from '../base/errors.ts';
import type { Ending } from './start/opencode-process.ts';
import { passSignals } from './start/signals.ts';
import { OpencodeError } from './start/supervised.ts';

/** Runs opencode as if this program were not there: its terminal, pipes, signals and end are the caller's. */
export async function runPlain(program: string, args: readonly string[], process: NodeJS.Process): Promise<Ending> {
  const child = spawn(program, args, { stdio: 'inherit' });
  const kill = (signal: NodeJS.Signals): void => void child.kill(signal);
  // An interrupt at a terminal goes to both already, and a second one may mean more to it.
  const pass = [0, 1, 2].some((fd) => isatty(fd)) ? () => {} : kill;
  const signals = passSignals(process, { pass, stop: kill });
  signals.starting({ interrupted: false });
  try {
    return await new Promise((resolve, reject) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      child.once('error', (error) => reject(new OpencodeError(`cannot start ${program}: ${messageOf(error)}`)));
    });
  } finally {
    signals.stop();
  }
}
