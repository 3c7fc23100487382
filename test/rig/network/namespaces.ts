import { type ChildProcess, execFile, spawn, type SpawnOptions } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { signalProcess } from '../processes.ts';
import { until } from '../wait.ts';

const run = promisify(execFile);

/** Names are `octn-<pid>-<start>-<label>`; by pid and start time the next run finds the leftovers of a killed run. */
const PREFIX = 'octn-';

/** Isolated network namespaces of one test. */
export class NamespaceSet {
  readonly #stem: string;
  readonly #names: string[] = [];

  /** `label` must be unique in this process. */
  static async open(label: string): Promise<NamespaceSet> {
    return new NamespaceSet(`${PREFIX}${process.pid}-${await startOf(process.pid)}-${label}`);
  }

  private constructor(stem: string) {
    this.#stem = stem;
  }

  /** Creates a namespace with loopback up; returns its full name. */
  async add(label: string): Promise<string> {
    const name = this.nameOf(label);
    await run('ip', ['netns', 'add', name]);
    this.#names.push(name);
    await ipIn(name, 'link', 'set', 'lo', 'up');
    return name;
  }

  nameOf(label: string): string {
    return `${this.#stem}-${label}`;
  }

  /** Removes the namespaces, with their processes. */
  async close(): Promise<void> {
    for (const name of this.#names.splice(0).toReversed()) await removeNamespace(name);
  }
}

/** `ip …` on the interfaces of a namespace. */
export function ipIn(namespace: string, ...args: readonly string[]): Promise<unknown> {
  return run('ip', ['-n', namespace, ...args]);
}

/** The prefix of a command that runs in a namespace; the process keeps its pid. */
export function inside(namespace: string): readonly [string, ...string[]] {
  return ['ip', 'netns', 'exec', namespace];
}

/** The output of a command in a namespace, which must succeed. */
export async function execIn(namespace: string, argv: readonly string[]): Promise<string> {
  const [program, ...args] = [...inside(namespace), ...argv] as const;
  return (await run(program, args)).stdout;
}

/** Starts a process in a namespace; it ends with the namespace at the latest. */
export function spawnIn(namespace: string, argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const [program, ...args] = [...inside(namespace), ...argv] as const;
  return spawn(program, args, options);
}

/** Removes the namespaces of ended test processes, with their processes. */
export async function removeLeftovers(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list']);
  for (const line of stdout.split('\n')) {
    const [, name = '', pid = '', start = ''] = /^(octn-(\d+)-(\d+)-[\w-]+)/.exec(line) ?? [];
    if (name !== '' && (await startOf(Number(pid)).catch(() => '')) !== start) await removeNamespace(name);
  }
}

/** The pids of all processes in a namespace. */
export async function processesOf(namespace: string): Promise<number[]> {
  const { stdout } = await run('ip', ['netns', 'pids', namespace]);
  return stdout.split('\n').filter(Boolean).map(Number);
}

/** The reason why namespaces cannot be made here, or undefined. */
export function missingForNamespaces(): string | undefined {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0) return 'needs root on Linux, for network namespaces';
  if (!['/usr/sbin/ip', '/sbin/ip', '/usr/bin/ip'].some((path) => existsSync(path))) return 'needs iproute2';
  return undefined;
}

/** Kills all processes in a namespace. */
export async function endProcessesOf(namespace: string): Promise<void> {
  await until(`everything in ${namespace} to end`, async () => {
    const pids = await processesOf(namespace);
    for (const pid of pids) signalProcess(pid, 'SIGKILL');
    return pids.length === 0;
  });
}

/** Another test process may remove the same leftover at the same moment. */
async function removeNamespace(name: string): Promise<void> {
  try {
    await endProcessesOf(name);
    await run('ip', ['netns', 'del', name]);
  } catch (error) {
    if ((await run('ip', ['netns', 'list'])).stdout.split(/\s/).includes(name)) throw error;
  }
}

/** The start time of a process in clock ticks since boot: pids are reused. */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}
