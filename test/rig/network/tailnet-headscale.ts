import { execFile, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { LoggedChild } from '../logged-child.ts';
import { HEADSCALE } from './tailnet-programs.ts';

const run = promisify(execFile);

export const HUB_ADDRESS = '10.213.0.1';
export const LOGIN_SERVER = `http://${HUB_ADDRESS}:8080`;

export interface HeadscaleOptions {
  readonly namespace: string;
  readonly folder: string;
  /** TMPDIR of the children, which end with this process. */
  readonly tmp: string;
  readonly magicDns: boolean;
  /** `v6`: nodes get no IPv4 address. */
  readonly families: 'both' | 'v6';
  readonly policy: unknown;
}

/** A real control server with its own DERP relay. */
export class Headscale {
  readonly #options: HeadscaleOptions;
  #child: LoggedChild | undefined;

  constructor(options: HeadscaleOptions) {
    this.#options = options;
  }

  async prepare(): Promise<void> {
    await this.#writePolicy(this.#options.policy);
    await writeFile(this.#file('config.json'), JSON.stringify(this.#config()));
  }

  async start(): Promise<void> {
    const { namespace, tmp, folder } = this.#options;
    const args = ['netns', 'exec', namespace, HEADSCALE, '-c', this.#file('config.json'), 'serve'];
    const child = spawn('ip', args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: folder,
      env: { PATH: process.env['PATH'] ?? '', TMPDIR: tmp },
    });
    this.#child = new LoggedChild(child);
    const answers = (): Promise<boolean> =>
      this.cli('users', 'list').then(
        () => true,
        () => false,
      );
    await this.#child.until('headscale to answer', answers);
  }

  /** Kills headscale; the tailnet continues to work without it. */
  async stop(): Promise<void> {
    await this.#child?.end();
  }

  /** The parsed output of a `headscale` command, which must succeed. */
  async cli(...args: string[]): Promise<unknown> {
    const { stdout } = await run(HEADSCALE, ['-c', this.#file('config.json'), ...args, '--output', 'json']);
    return stdout.trim() === '' ? undefined : (JSON.parse(stdout) as unknown);
  }

  /** A reusable key for nodes of `user`, or with `tags`. */
  async authKey(user: string, tags: readonly string[]): Promise<string> {
    // headscale prints null if there are no users.
    const users = ((await this.cli('users', 'list')) ?? []) as { id: number; name: string }[];
    const found =
      users.find(({ name }) => name === user) ?? ((await this.cli('users', 'create', user)) as { id: number });
    const owner = ['--user', String(found.id), '--reusable', '--expiration', '24h'];
    const tagged = tags.length === 0 ? [] : ['--tags', tags.join(',')];
    return ((await this.cli('preauthkeys', 'create', ...owner, ...tagged)) as { key: string }).key;
  }

  async setPolicy(policy: unknown): Promise<void> {
    await this.#writePolicy(policy);
    // headscale rereads the file on SIGHUP; `ip netns exec` has become headscale.
    this.#child?.signal('SIGHUP');
  }

  #writePolicy(policy: unknown): Promise<void> {
    return writeFile(this.#file('policy.json'), JSON.stringify(policy));
  }

  #file(name: string): string {
    return join(this.#options.folder, name);
  }

  #config(): unknown {
    const { families, magicDns } = this.#options;
    return {
      server_url: LOGIN_SERVER,
      listen_addr: `${HUB_ADDRESS}:8080`,
      metrics_listen_addr: '127.0.0.1:9090',
      grpc_listen_addr: '127.0.0.1:50443',
      noise: { private_key_path: this.#file('noise.key') },
      prefixes: {
        ...(families === 'both' && { v4: '100.64.0.0/10' }),
        v6: 'fd7a:115c:a1e0::/48',
        allocation: 'random',
      },
      derp: {
        server: {
          enabled: true,
          region_id: 999,
          region_code: 'test',
          region_name: 'test',
          verify_clients: false,
          stun_listen_addr: `${HUB_ADDRESS}:3478`,
          private_key_path: this.#file('derp.key'),
          automatically_add_embedded_derp_region: true,
          ipv4: HUB_ADDRESS,
        },
        urls: [],
        paths: [],
        auto_update_enabled: false,
      },
      disable_check_updates: true,
      database: { type: 'sqlite', sqlite: { path: this.#file('db.sqlite'), write_ahead_log: true } },
      log: { level: 'info', format: 'text' },
      policy: { mode: 'file', path: this.#file('policy.json') },
      dns: {
        magic_dns: magicDns,
        base_domain: 'tailnet.test',
        override_local_dns: false,
        nameservers: { global: [] },
      },
      unix_socket: this.#file('headscale.sock'),
      unix_socket_permission: '0700',
      logtail: { enabled: false },
    };
  }
}
