import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'vitest';

import { startMcpChild, type McpChild, type McpChildOptions } from './mcp-child.ts';
import {
  endProcessesOf,
  execIn,
  inside,
  ipIn,
  missingForNamespaces,
  NamespaceSet,
  removeLeftovers,
  spawnIn,
} from './namespaces.ts';
import { skipFor } from './needed.ts';
import { PINNED_OPENCODE } from './opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from './opencode-sandbox.ts';
import { until, within } from './wait.ts';

/** As for any real opencode: two cores may be shared by several. */
const START_LIMIT_MS = 90_000;
const LOG_LIMIT = 100_000;

export interface MachineOptions {
  /** The LANs that it is on, as `eth0`, `eth1`, …. Default: the first. */
  readonly lans?: readonly number[];
  /** `v6`: link-local addresses only. Default: both. */
  readonly families?: 'both' | 'v4' | 'v6';
  /** Of its IPv4 addresses: the last number. Default: 10 and how many machines there are. */
  readonly number?: number;
}

/** First line of a test that needs network namespaces. */
export function needNamespaces(context: Pick<TestContext, 'skip'>): void {
  skipFor(context, missingForNamespaces());
}

let serial = 0;

/** Machines in network namespaces of their own, on one LAN or several: Ethernet bridges that lead nowhere else. */
export class Lan implements AsyncDisposable {
  readonly #set: NamespaceSet;
  readonly #hub: string;
  readonly #bridges = new Set<number>();
  readonly #machines: Machine[] = [];
  #closing: Promise<void> | undefined;

  private constructor(set: NamespaceSet, hub: string) {
    this.#set = set;
    this.#hub = hub;
  }

  /** Removes first what a killed run left. */
  static async open(): Promise<Lan> {
    await removeLeftovers();
    const set = await NamespaceSet.open(`lan${(serial += 1)}`);
    return new Lan(set, await set.add('hub'));
  }

  async machine(name: string, options: MachineOptions = {}): Promise<Machine> {
    const namespace = await this.#set.add(name);
    const number = options.number ?? 10 + this.#machines.length;
    const machine = new Machine(this, name, namespace, number, options);
    this.#machines.push(machine);
    // A link-local address is good at once: nobody here has its twin.
    await execIn(namespace, ['sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0']).catch(() => {});
    if (options.families === 'v4') await execIn(namespace, ['sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
    for (const [index, lan] of (options.lans ?? [1]).entries()) await machine.plug(lan, `eth${index}`);
    return machine;
  }

  /** A cable from the interface of a machine to a bridge. */
  async cable(machine: Machine, lan: number, interfaceName: string): Promise<void> {
    await this.#bridge(lan);
    const port = `p${this.#machines.indexOf(machine)}-${interfaceName}`;
    const ends = ['link', 'add', port, 'type', 'veth', 'peer', 'name', interfaceName, 'netns', machine.namespace];
    await ipIn(this.#hub, ...ends);
    await ipIn(this.#hub, 'link', 'set', port, 'master', `br${lan}`, 'up');
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.all(this.#machines.map((machine) => machine.close()));
      await this.#set.close();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #bridge(lan: number): Promise<void> {
    if (this.#bridges.has(lan)) return;
    this.#bridges.add(lan);
    const name = `br${lan}`;
    await ipIn(this.#hub, 'link', 'add', name, 'type', 'bridge', 'mcast_snooping', '0');
    await ipIn(this.#hub, 'link', 'set', name, 'up');
  }
}

/** One machine on the LAN. */
export class Machine {
  readonly name: string;
  readonly namespace: string;
  readonly #lan: Lan;
  readonly #families: NonNullable<MachineOptions['families']>;
  readonly #sandboxes: OpencodeSandbox[] = [];
  #number: number;

  constructor(lan: Lan, name: string, namespace: string, number: number, options: MachineOptions) {
    this.#lan = lan;
    this.name = name;
    this.namespace = namespace;
    this.#number = number;
    this.#families = options.families ?? 'both';
  }

  /** Its IPv4 address on a LAN. */
  on(lan: number): string {
    return `192.168.${lan}.${this.#number}`;
  }

  /** Its link-local address on an interface. */
  async linkLocal(interfaceName = 'eth0'): Promise<string> {
    return until(`${this.name} to have a link-local address`, async () => {
      const found = await this.exec(['ip', '-6', 'addr', 'show', 'dev', interfaceName, 'scope', 'link']);
      return /inet6 (fe80:[0-9a-f:]+)\//.exec(found)?.[1];
    });
  }

  /** Connects it to a LAN. */
  async plug(lan: number, interfaceName: string): Promise<void> {
    await this.#lan.cable(this, lan, interfaceName);
    await this.#configure(lan, interfaceName);
  }

  /** As when a dongle is pulled out and put in again: another interface with the name and the addresses of the one before. */
  async replug(lan: number, interfaceName: string): Promise<void> {
    const mac = (await this.exec(['cat', `/sys/class/net/${interfaceName}/address`])).trim();
    await this.unplug(interfaceName);
    await this.#lan.cable(this, lan, interfaceName);
    await ipIn(this.namespace, 'link', 'set', interfaceName, 'address', mac);
    await this.#configure(lan, interfaceName);
  }

  async unplug(interfaceName: string): Promise<void> {
    await ipIn(this.namespace, 'link', 'del', interfaceName);
  }

  async #configure(lan: number, interfaceName: string): Promise<void> {
    if (this.#families !== 'v6') await ipIn(this.namespace, 'addr', 'add', `${this.on(lan)}/24`, 'dev', interfaceName);
    await ipIn(this.namespace, 'link', 'set', interfaceName, 'up');
    // As any machine has: what leads nowhere else, and what an unbound socket multicasts by.
    if (this.#families !== 'v6' && interfaceName === 'eth0')
      await ipIn(this.namespace, 'route', 'add', 'default', 'dev', interfaceName);
    if (this.#families !== 'v4') await this.linkLocal(interfaceName);
  }

  /** Another IPv4 address on its first LAN, as after a new lease. */
  async move(number: number): Promise<void> {
    const before = this.on(1);
    this.#number = number;
    await ipIn(this.namespace, 'addr', 'del', `${before}/24`, 'dev', 'eth0');
    await ipIn(this.namespace, 'addr', 'add', `${this.on(1)}/24`, 'dev', 'eth0');
    await ipIn(this.namespace, 'route', 'replace', 'default', 'dev', 'eth0');
  }

  /** Further IPv4 addresses on its first LAN. */
  async alias(address: string): Promise<void> {
    await ipIn(this.namespace, 'addr', 'replace', `${address}/24`, 'dev', 'eth0');
  }

  exec(argv: readonly string[]): Promise<string> {
    return execIn(this.namespace, argv);
  }

  /** Kills everything that runs on it, as when its power goes. */
  crash(): Promise<void> {
    return endProcessesOf(this.namespace);
  }

  /** A sandbox for programs of a person on this machine. */
  async sandbox(options: SandboxOptions = {}): Promise<OpencodeSandbox> {
    const sandbox = await openSandbox(options);
    this.#sandboxes.push(sandbox);
    return sandbox;
  }

  /** A program of a person, under the name of its machine. */
  run(argv: readonly string[], sandbox: OpencodeSandbox, env: Readonly<Record<string, string>> = {}): Program {
    // `unshare` gives it a host name of its own and becomes the program: its pid stays.
    const named = ['unshare', '--uts', 'sh', '-c', `hostname "$0" && exec "$@"`, this.name, ...argv];
    const child = spawnIn(this.namespace, named, {
      cwd: sandbox.directory,
      env: { ...sandbox.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new Program(child, `${argv.join(' ')} on ${this.name}`);
  }

  /** The real `opencode serve --mdns`, listening. */
  async opencode(port: number, options: SandboxOptions = {}): Promise<Program & { readonly directory: string }> {
    const sandbox = await this.sandbox(options);
    const program = this.run([PINNED_OPENCODE, 'serve', '--port', String(port), '--mdns', '--print-logs'], sandbox);
    await program.says(/server listening/);
    return Object.assign(program, { directory: sandbox.directory });
  }

  /** The built server, as a client on this machine runs it: on its LANs alone. */
  mcp(options: McpChildOptions = {}): Promise<McpChild> {
    return startMcpChild({
      ...options,
      prefix: inside(this.namespace),
      env: {
        TRANSPORT: 'mdns',
        OPENCODE_MDNS_INTERFACES: 'all',
        HEALTH_CHECK_TIMEOUT_MS: '15000',
        DISCOVERY_INTERVAL_MS: '2000',
        ...options.env,
      },
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#sandboxes.splice(0).map((sandbox) => sandbox.close()));
  }
}

/** A process in a machine. */
export class Program {
  readonly pid: number;
  readonly exited: Promise<unknown>;
  readonly #child: ChildProcess;
  readonly #what: string;
  #output = '';

  constructor(child: ChildProcess, what: string) {
    this.#child = child;
    this.#what = what;
    this.pid = child.pid ?? 0;
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => (this.#output = (this.#output + chunk.toString()).slice(-LOG_LIMIT)));
    this.exited = once(child, 'exit');
  }

  describe(): string {
    return `${this.#what}, pid ${this.pid}`;
  }

  get output(): string {
    return this.#output;
  }

  /** Resolves with what it has written that fits. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return until(
      `${this.#what} to say ${pattern}`,
      () => {
        const found = pattern.exec(this.#output);
        if (found === null && this.#child.exitCode !== null)
          throw new Error(`${this.#what} ended with ${this.#child.exitCode}:\n${this.#output}`);
        return found ?? undefined;
      },
      START_LIMIT_MS,
    );
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#child.kill(signal);
    await within(this.exited, `the end of ${this.#what}`);
  }
}
