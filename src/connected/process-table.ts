import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { errorCode } from '../base/errors.ts';
import { holdersOf, readListeners } from '../base/socket-table.ts';

/** `ps` answers in tens of milliseconds; a hung file system must not hold up a start. */
const COMMAND_LIMIT_MS = 3_000;
const POLL_MS = 50;
/** All of a busy machine's processes, one short line each. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;

/** Which process this is: the pid and when it began, since pids come back. */
export interface ProcessIdentity {
  readonly pid: number;
  /** In the system's own unit; only compared. Undefined if unknown. */
  readonly started?: string;
}

/** Undefined when no such process runs (a zombie does not). */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  if (process.platform === 'linux') {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    if (stat === undefined) return undefined;
    // The program's name stands in brackets and may hold anything; the fields after it are numbers.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state] = fields;
    const started = fields[19];
    if (state === 'Z' || state === 'X') return undefined;
    return { pid, ...(started !== undefined && { started }) };
  }
  const answer = await ps(['-o', 'lstart=', '-p', String(pid)]);
  const started = answer?.trim();
  if (answer === undefined) return isRunning(pid) ? { pid } : undefined;
  return started ? { pid, started } : undefined;
}

/** Whether the very process still runs; without a start time, whether any of that pid does. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid);
  if (now === undefined) return false;
  return identity.started === undefined || now.started === undefined || now.started === identity.started;
}

/** `pid` and everything it has started that still runs. */
export async function familyOf(pid: number): Promise<ReadonlySet<number>> {
  const parents = await parentsOfAll();
  const family = new Set([pid]);
  for (let size = 0; size !== family.size;) {
    size = family.size;
    for (const [child, parent] of parents) if (family.has(parent)) family.add(child);
  }
  return family;
}

/**
 * Pids that hold the socket listening on `port` of loopback or of every address. Undefined where it cannot be told;
 * empty when the listener belongs to another user.
 */
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

/** Sends a signal to a process that may have ended already, which is what was wanted. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}

/** Whether the process ends within `limitMs`. By a timer of its own: nothing else may keep this process from ending meanwhile. */
export async function endsWithin(identity: ProcessIdentity, limitMs: number): Promise<boolean> {
  for (let waitedMs = 0; await isAlive(identity); waitedMs += POLL_MS) {
    if (waitedMs >= limitMs) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** What `ps` prints. Undefined where there is none; an exit status says only that nothing was found. */
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
