import type { ChildProcess } from 'node:child_process';
import type { TestContext } from 'vitest';

import { LoggedChild } from '../logged-child.ts';
import { startMcpChild, type McpChild, type McpChildOptions } from '../programs/mcp-child.ts';
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
import { skipFor } from '../needed.ts';
import { PINNED_OPENCODE } from '../opencode/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from '../opencode/opencode-sandbox.ts';
import { until } from '../wait.ts';

/** As for any real opencode: two cores may be shared by several. */
const START_LIMIT_MS = 90_000;

export interface MachineOptions {
  /** Its LANs, as `eth0`, `eth1`, …. Default: the first. */
  readonly lans?: readonly number[];
  /** `v6`: link-local addresses only. Default: both. */
  readonly families?: 'both' | 'v4' | 'v6';
  /** The last number of its IPv4 addresses. Default: 10 plus the number of machines before it. */
  readonly number?: number;
}

/** Call it first in each test that needs network namespaces. */
export function needNamespaces(context: Pick<TestContext, 'skip'>): void {
  skipFor(context, missingForNamespaces());
}

let serial = 0;

/** Machines in separate network namespaces on one or more LANs: isolated Ethernet bridges. */
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

  /** First removes the namespaces and bridges that a killed run left. */
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
    // No other machine here has its link-local address: use it without the detection of duplicates.
    await execIn(namespace, ['sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0']).catch(() => {});
    if (options.families === 'v4') await execIn(namespace, ['sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
    for (const [index, lan] of (options.lans ?? [1]).entries()) await machine.plug(lan, `eth${index}`);
    return machine;
  }

  /** Connects an interface of a machine to a bridge. */
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

  /** Connects the machine to a LAN. */
  async plug(lan: number, interfaceName: string): Promise<void> {
    await this.#lan.cable(this, lan, interfaceName);
    await this.#configure(lan, interfaceName);
  }

  /** Simulates pulling out a dongle and putting it in again: a new interface with the name and the addresses of the old one. */
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
    // Every machine has a default route: an unbound socket multicasts by it.
    if (this.#families !== 'v6' && interfaceName === 'eth0')
      await ipIn(this.namespace, 'route', 'add', 'default', 'dev', interfaceName);
    if (this.#families !== 'v4') await this.linkLocal(interfaceName);
  }

  /** Replaces the IPv4 address on the first LAN, as a new lease does. */
  async move(number: number): Promise<void> {
    const before = this.on(1);
    this.#number = number;
    await ipIn(this.namespace, 'addr', 'del', `${before}/24`, 'dev', 'eth0');
    await ipIn(this.namespace, 'addr', 'add', `${this.on(1)}/24`, 'dev', 'eth0');
    await ipIn(this.namespace, 'route', 'replace', 'default', 'dev', 'eth0');
  }

  /** Adds IPv4 addresses on the first LAN. */
  async alias(address: string): Promise<void> {
    await ipIn(this.namespace, 'addr', 'replace', `${address}/24`, 'dev', 'eth0');
  }

  exec(argv: readonly string[]): Promise<string> {
    return execIn(this.namespace, argv);
  }

  /** Kills all processes on the machine, as a power cut does. */
  crash(): Promise<void> {
    return endProcessesOf(this.namespace);
  }

  /** A sandbox for programs of a person on this machine. */
  async sandbox(options: SandboxOptions = {}): Promise<OpencodeSandbox> {
    const sandbox = await openSandbox(options);
    this.#sandboxes.push(sandbox);
    return sandbox;
  }

  /** Runs a program of a person under the name of the machine. */
  run(argv: readonly string[], sandbox: OpencodeSandbox, env: Readonly<Record<string, string>> = {}): Program {
    // `unshare` sets its host name and becomes the program: the pid stays.
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

  /** The built server as a client on this machine runs it, with its LANs as the only source. */
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

/** A process on a machine. */
export class Program extends LoggedChild {
  readonly #name: string;

  constructor(child: ChildProcess, name: string) {
    super(child, name);
    this.#name = name;
  }

  describe(): string {
    return `${this.#name}, pid ${this.pid}`;
  }

  /** Resolves with the part of its output that matches. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    const look = (): RegExpExecArray | undefined => pattern.exec(this.output) ?? undefined;
    return this.until(`${this.#name} to say ${pattern}`, look, START_LIMIT_MS);
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    return this.end(signal);
  }
}
