import { execFile, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { createLocalApi } from '../../../src/tailscale/local-api.ts';
import type { LocalApi } from '../../../src/tailscale/types.ts';
import { LoggedChild } from '../logged-child.ts';
import { LOGIN_SERVER } from './tailnet-headscale.ts';
import { TAILSCALE, TAILSCALED } from './tailnet-programs.ts';
import type { TempDir } from '../temp.ts';
import { until } from '../wait.ts';

const run = promisify(execFile);

/** Nothing leaves the machine: no logs, no port mapping, no captive portal, a panic instead of the real control server. */
const ENVIRONMENT = {
  TS_NO_LOGS_NO_SUPPORT: 'true',
  TS_DISABLE_PORTMAPPER: '1',
  TS_ASSUME_NETWORK_UP_FOR_TEST: '1',
  TS_PANIC_IF_HIT_MAIN_CONTROL: '1',
  TS_DEBUG_USE_DERP_HTTP: '1',
};

export interface NodeOptions {
  readonly name: string;
  /** `tun`: a TUN device in the node's namespace; `userspace`: none, inbound arrives on its 127.0.0.1. */
  readonly mode: 'tun' | 'userspace';
  /** Default: ada. */
  readonly user?: string;
  readonly tags?: readonly string[];
}

/** A program and its first arguments. */
export type Prefix = readonly [string, ...string[]];

/** One machine of the tailnet: a network namespace and a real tailscaled in it. */
export class TailnetMachine {
  readonly name: string;
  readonly namespace: string;
  /** Its LocalAPI's Unix socket, reachable from every namespace. */
  readonly socket: string;
  readonly localApi: LocalApi;
  ip4 = '';
  ip6 = '';
  /** Stable node id. */
  id = '';
  readonly #options: NodeOptions;
  readonly #folder: string;
  readonly #environment: Readonly<Record<string, string>>;
  #child: LoggedChild | undefined;

  /** `tmp`: TMPDIR of the children, which end with this process. */
  constructor(options: NodeOptions, namespace: string, { path, tmp }: Pick<TempDir, 'path' | 'tmp'>) {
    this.name = options.name;
    this.namespace = namespace;
    this.#options = options;
    this.#folder = join(path, options.name);
    this.#environment = { PATH: process.env['PATH'] ?? '', TMPDIR: tmp, ...ENVIRONMENT };
    this.socket = join(this.#folder, 'tailscaled.sock');
    this.localApi = createLocalApi({ socketPath: this.socket, clock: systemClock, logger: silentLogger });
  }

  /** The prefix of a command that is to run in this machine's network namespace with its host name. */
  get prefix(): Prefix {
    const script = 'hostname "$0" && exec "$@"';
    return ['ip', 'netns', 'exec', this.namespace, 'unshare', '--uts', 'sh', '-c', script, this.name];
  }

  /** The output of a command on this machine; rejects if it fails. */
  async exec(argv: readonly string[]): Promise<string> {
    const [program, ...args] = this.prefix;
    const { stdout } = await run(program, [...args, ...argv]);
    return stdout;
  }

  /** Starts a process on this machine; its pid is the child's. It ends with the tailnet at the latest. */
  spawn(argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const [program, ...args] = this.prefix;
    return spawn(program, [...args, ...argv], options);
  }

  /** The output of `tailscale …` on this machine. */
  cli(...args: string[]): Promise<string> {
    return this.exec([TAILSCALE, `--socket=${this.socket}`, ...args]);
  }

  /** Starts tailscaled; resolves when its LocalAPI answers. */
  async start(): Promise<void> {
    await mkdir(this.#folder, { recursive: true });
    const argv = [
      TAILSCALED,
      `--tun=${this.#options.mode === 'tun' ? 'tailscale0' : 'userspace-networking'}`,
      `--statedir=${this.#folder}`,
      `--socket=${this.socket}`,
      '--port=0',
      '--no-logs-no-support',
    ];
    const child = this.spawn(argv, { stdio: ['ignore', 'pipe', 'pipe'], env: this.#environment });
    this.#child = new LoggedChild(child);
    const answers = (): Promise<boolean> =>
      this.localApi.status().then(
        () => true,
        () => false,
      );
    await this.#child.until(`tailscaled of ${this.name} to answer`, answers);
  }

  /** Kills tailscaled; the other nodes still list this one, which does not answer. */
  async stop(): Promise<void> {
    await this.#child?.end();
  }

  async join(authKey: string): Promise<void> {
    await this.up(`--auth-key=${authKey}`, '--timeout=60s');
  }

  /** `tailscale down`. */
  async down(): Promise<void> {
    await this.cli('down');
  }

  /** `tailscale up` with the options of `join`. */
  async up(...more: readonly string[]): Promise<void> {
    const names = [`--login-server=${LOGIN_SERVER}`, `--hostname=${this.name}`];
    await this.cli('up', ...names, '--accept-dns=false', '--netfilter-mode=off', ...more);
    await this.running();
  }

  /** Resolves when the machine has addresses. */
  async running(): Promise<void> {
    const self = await until(`${this.name} to be running`, async () => {
      const status = await this.localApi.status();
      return status.backendState === 'Running' && (status.self?.addresses.length ?? 0) > 0 && status.self;
    });
    this.id = self.id;
    this.ip4 = self.addresses.find((address) => !address.includes(':')) ?? '';
    this.ip6 = self.addresses.find((address) => address.includes(':')) ?? '';
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }
}
