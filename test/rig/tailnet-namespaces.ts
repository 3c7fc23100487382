import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import { until } from './wait.ts';

const run = promisify(execFile);

/** Names are `octn-<pid>-<start>-<label>`: of which process, so that the next run finds what a killed one left. */
const PREFIX = 'octn-';

/** Network namespaces of one tailnet, joined by a bridge in the first, which has no way out of them. */
export class Namespaces {
  readonly #stem: string;
  readonly #names: string[] = [];

  private constructor(stem: string) {
    this.#stem = stem;
  }

  /** Makes the hub: a bridge with 10.213.0.1. */
  static async open(serial: number): Promise<Namespaces> {
    const spaces = new Namespaces(`${PREFIX}${process.pid}-${await startOf(process.pid)}-${serial}`);
    const hub = await spaces.#add('hub');
    await ip(hub, 'link', 'add', 'br0', 'type', 'bridge');
    await ip(hub, 'addr', 'add', '10.213.0.1/24', 'dev', 'br0');
    await ip(hub, 'link', 'set', 'br0', 'up');
    return spaces;
  }

  get hub(): string {
    return `${this.#stem}-hub`;
  }

  /** A namespace of a machine, at `10.213.0.<number>`. */
  async machine(number: number): Promise<string> {
    const name = await this.#add(`n${number}`);
    const ours = ['link', 'add', 'eth0', 'netns', name, 'type', 'veth'];
    await run('ip', [...ours, 'peer', 'name', `v${number}`, 'netns', this.hub]);
    await ip(this.hub, 'link', 'set', `v${number}`, 'master', 'br0', 'up');
    await ip(name, 'addr', 'add', `10.213.0.${number}/24`, 'dev', 'eth0');
    await ip(name, 'link', 'set', 'eth0', 'up');
    await ip(name, 'route', 'add', 'default', 'via', '10.213.0.1');
    return name;
  }

  /** Ends what runs in them and removes them. */
  async close(): Promise<void> {
    for (const name of this.#names.splice(0).toReversed()) await removeNamespace(name);
  }

  async #add(label: string): Promise<string> {
    const name = `${this.#stem}-${label}`;
    await run('ip', ['netns', 'add', name]);
    this.#names.push(name);
    await ip(name, 'link', 'set', 'lo', 'up');
    return name;
  }
}

/** Removes the namespaces of test processes that are gone, with what runs in them. */
export async function removeLeftovers(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list']);
  for (const line of stdout.split('\n')) {
    const [, name = '', pid = '', start = ''] = /^(octn-(\d+)-(\d+)-[\w-]+)/.exec(line) ?? [];
    if (name !== '' && (await startOf(Number(pid)).catch(() => '')) !== start) await removeNamespace(name);
  }
}

/** Pids of everything in a namespace. */
export async function processesOf(namespace: string): Promise<number[]> {
  const { stdout } = await run('ip', ['netns', 'pids', namespace]);
  return stdout.split('\n').filter(Boolean).map(Number);
}

async function removeNamespace(name: string): Promise<void> {
  await until(`everything in ${name} to end`, async () => {
    const pids = await processesOf(name);
    for (const pid of pids) kill(pid);
    return pids.length === 0;
  });
  await run('ip', ['netns', 'del', name]);
}

function ip(namespace: string, ...args: string[]): Promise<unknown> {
  return run('ip', ['-n', namespace, ...args]);
}

/** When a process started, in clock ticks since boot: a pid is given again. */
async function startOf(pid: number): Promise<string> {
  await readdir(`/proc/${pid}`);
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
