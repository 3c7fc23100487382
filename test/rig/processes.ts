import { readdir, readFile } from 'node:fs/promises';

import { until } from './wait.ts';

/**
 * Pids of all processes started with `TMPDIR=<folder>`. No process group contains them all: opencode starts each shell of its bash tool in
 * a new session, and shells outlive it. Linux only: reads /proc.
 */
export async function processesIn(folder: string): Promise<number[]> {
  const pids = await allPids();
  const environments = await Promise.all(pids.map(environmentOf));
  return pids.filter((_, index) => environments[index]?.split('\0').includes(`TMPDIR=${folder}`));
}

export async function allPids(): Promise<number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

/** Kills the processes that `processesIn` returns until it returns none. */
export async function endProcessesIn(folder: string): Promise<void> {
  await until(`all processes in ${folder} to end`, async () => {
    const pids = await processesIn(folder);
    for (const pid of pids) signalProcess(pid, 'SIGKILL');
    return pids.length === 0;
  });
}

/** Returns an empty string for an ended process, a zombie or another user's process. */
function environmentOf(pid: number): Promise<string> {
  return readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
}

/** Does nothing if the process has already ended. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
