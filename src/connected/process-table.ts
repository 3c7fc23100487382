import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { errorCode } from '../base/errors.ts';
import { holdersOf, readListeners } from '../base/socket-table.ts';

/** `ps` answers in tens of milliseconds; a hung file system must not delay a start. */
const COMMAND_LIMIT_MS = 3_000;
const POLL_MS = 50;
/** Limit for one short line per process of a busy machine. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;

/** A process: its pid, and its start time, since pids are reused. */
export interface ProcessIdentity {
  readonly pid: number;
  /** In the system's own unit; only compared. Undefined if unknown. */
  readonly started?: string | undefined;
}

/** Undefined if no such process runs; a zombie does not count. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  if (process.platform === 'linux') {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    if (stat === undefined) return undefined;
    // The program's name is in brackets and may contain anything; the fields after it are numbers.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state] = fields;
    return state === 'Z' || state === 'X' ? undefined : { pid, started: fields[19] };
  }
  const answer = await ps(['-o', 'lstart=', '-p', String(pid)]);
  const started = answer?.trim();
  if (answer === undefined) return isRunning(pid) ? { pid } : undefined;
  return started ? { pid, started } : undefined;
}

/** As `identifyProcess`, but without a start time if the process cannot be found. */
export async function processIdentity(pid: number): Promise<ProcessIdentity> {
  return (await identifyProcess(pid)) ?? { pid };
}

/** Whether that process still runs; if its start time is unknown, whether any process with its pid does. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid);
  if (now === undefined) return false;
  return identity.started === undefined || now.started === undefined || now.started === identity.started;
}

/** `pid` and all its running descendants. */
export async function familyOf(pid: number): Promise<ReadonlySet<number>> {
  const parents = await parentsOfAll();
  const family = new Set([pid]);
  for (let size = 0; size !== family.size;) {
    size = family.size;
    for (const [child, parent] of parents) if (family.has(parent)) family.add(child);
  }
  return family;
}

/** The pids that hold the sockets listening on `port`. Undefined if the system does not show them; empty if they are another user's. */
export async function listenersOn(port: number): Promise<ReadonlySet<number> | undefined> {
  const rows = (await readListeners())?.filter(({ local }) => local.port === port);
  if (rows === undefined) return undefined;
  const holders = await Promise.all(rows.map(async ({ holder, inode }) => holder ?? holdersOf(inode)));
  return new Set(holders.flat().map(({ pid }) => pid));
}

async function parentsOfAll(): Promise<ReadonlyMap<number, number>> {
  const answer = await ps(['-A', '-o', 'pid=,ppid=']);
  const rows = answer?.split('\n').map((line) => line.trim().split(/\s+/).map(Number)) ?? [];
  return new Map(rows.flatMap(([pid, parent]) => (pid && parent !== undefined ? [[pid, parent] as const] : [])));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}

/** Sends a signal to a process, or to a group if `pid` is negative. It may have ended already. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** Whether the process ends within `limitMs`. The timer keeps this process alive meanwhile: nothing else may do so. */
export async function endsWithin(identity: ProcessIdentity, limitMs: number): Promise<boolean> {
  for (let waitedMs = 0; await isAlive(identity); waitedMs += POLL_MS) {
    if (waitedMs >= limitMs) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** The output of `ps`. Undefined if it cannot be run; an exit status only means that it found nothing. */
export function ps(args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    execFile(
      'ps',
      args,
      {
        timeout: COMMAND_LIMIT_MS,
        killSignal: 'SIGKILL',
        maxBuffer: MAX_OUTPUT_BYTES,
        env: { ...process.env, LC_ALL: 'C' },
      },
      (error, stdout) => resolve(error !== null && typeof error.code !== 'number' ? undefined : stdout),
    );
  });
}
