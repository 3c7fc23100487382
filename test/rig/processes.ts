import { readdir, readFile } from 'node:fs/promises';

import { until } from './wait.ts';

/**
 * Pids of the processes that were started with `TMPDIR=<folder>`, by whomever. opencode gives each shell of its
 * bash tool a session of its own, and a shell outlives it, on SIGTERM too: no process group holds them all. Linux only: it reads /proc.
 */
export async function processesIn(folder: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const environments = await Promise.all(pids.map(environmentOf));
  return pids.filter((_, index) => environments[index]?.split('\0').includes(`TMPDIR=${folder}`));
}

/** Kills what `processesIn` finds and resolves when nothing is found any more. */
export async function endProcessesIn(folder: string): Promise<void> {
  await until(`all processes in ${folder} to end`, async () => {
    const pids = await processesIn(folder);
    for (const pid of pids) signalProcess(pid, 'SIGKILL');
    return pids.length === 0;
  });
}

/** Empty for a process that has ended in the meantime, is a zombie or is someone else's. */
function environmentOf(pid: number): Promise<string> {
  return readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
}

/** No error if it has ended already. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
