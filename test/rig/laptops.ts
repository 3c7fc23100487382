import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cp } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import type { Dial } from '../../src/base/dial.ts';
import { type Connection, exchange, requestJson } from '../../src/http/exchange.ts';
import { PINNED_OPENCODE } from './opencode-binaries.ts';
import { createProject, openSandbox, type OpencodeSandbox } from './opencode-sandbox.ts';
import { Namespaces } from './tailnet-namespaces.ts';
import { tempDir } from './temp.ts';
import { deferred, until, within } from './wait.ts';

/** The port of each laptop's opencode, on its own loopback. */
export const LAPTOP_PORT = 4096;

const START_LIMIT_MS = 90_000;

/** Runs in a laptop's namespace: forwards a socket file, which belongs to no network, to its opencode. */
const DOOR = `
const net = require('node:net');
net.createServer({ allowHalfOpen: true }, (outside) => {
  const inside = net.connect(${LAPTOP_PORT}, '127.0.0.1');
  outside.pipe(inside).pipe(outside);
  for (const [one, other] of [[outside, inside], [inside, outside]]) one.on('error', () => other.destroy());
}).listen(process.argv[1], () => console.log('open'));
process.stdin.resume().on('end', () => process.exit());`;

/** A real opencode on what looks like its own machine by network and home. */
export interface Laptop {
  /** From the test into the machine, where every laptop has the same address. */
  readonly dial: Dial;
  /** Parsed answers of its opencode, asked past every fault. */
  json(path: string): Promise<unknown>;
  /** Refuses to connect, and breaks what is connected. */
  down(): void;
  describe(): string;
}

/** Two laptops alike in all but the machine: host name, user, paths, ports, and a copied home or one that both have mounted. */
export interface Twins extends AsyncDisposable {
  readonly laptops: readonly [Laptop, Laptop];
  readonly directory: string;
}

/** For `describe.skipIf`: says what is missing, and throws in CI, where nothing may be. */
export function cannotMakeLaptops(): boolean {
  const able = process.geteuid?.() === 0 && spawnSync('ip', ['netns', 'list']).status === 0;
  if (able) return false;
  const message = 'network namespaces need root, Linux and iproute2';
  if (process.env['CI'] === 'true') throw new Error(message);
  process.stderr.write(`Skipped: ${message}\n`);
  return true;
}

export async function startTwins(home: 'copied' | 'shared', password: string, serial: number): Promise<Twins> {
  const temp = tempDir('opencode-twins');
  const own = join(temp.path, 'home');
  await createProject(join(own, 'work'));
  const sandbox = await openSandbox({ home: own, directory: join(own, 'work'), password });
  const namespaces = await Namespaces.open(serial);
  const machines: Machine[] = [];
  const close = async (): Promise<void> => {
    for (const machine of machines) machine.close();
    await namespaces.close();
    await sandbox.close();
    await temp.close();
  };
  try {
    // The database is there before it is copied, with a session in it.
    const first = new Machine(await namespaces.machine(2), sandbox, own, join(temp.path, 'first.sock'), password);
    machines.push(first);
    await first.start();
    await first.createSession();
    const other = home === 'shared' ? own : join(temp.path, 'copy');
    if (other !== own) {
      await first.stop();
      await cp(own, other, { recursive: true, preserveTimestamps: true });
      await first.start();
    }
    const second = new Machine(await namespaces.machine(3), sandbox, other, join(temp.path, 'second.sock'), password);
    machines.push(second);
    await second.start();
    return { laptops: [first, second], directory: sandbox.directory, close, [Symbol.asyncDispose]: close } as Twins;
  } catch (error) {
    await close();
    throw error;
  }
}

class Machine implements Laptop {
  readonly dial: Dial;
  readonly #namespace: string;
  readonly #sandbox: OpencodeSandbox;
  readonly #home: string;
  readonly #socket: string;
  readonly #connection: Connection;
  readonly #open = new Set<Socket>();
  #opencode: ChildProcess | undefined;
  #door: ChildProcess | undefined;
  #down = false;
  #version = '';

  constructor(namespace: string, sandbox: OpencodeSandbox, home: string, socket: string, password: string) {
    this.#namespace = namespace;
    this.#sandbox = sandbox;
    this.#home = home;
    this.#socket = socket;
    const past: Dial = () => this.#connect();
    this.#connection = {
      // In a namespace nobody sees who holds the port: only what a person configured gets a password there.
      endpoint: { url: `http://127.0.0.1:${LAPTOP_PORT}`, route: 'loopback', dial: past, configured: true },
      credential: { username: 'opencode', password },
    };
    this.dial = async () => {
      if (this.#down) throw new Error('ECONNREFUSED');
      const socket = await this.#connect();
      this.#open.add(socket.once('close', () => this.#open.delete(socket)));
      return socket;
    };
  }

  async start(): Promise<void> {
    const { directory, env, home } = this.#sandbox;
    // Under the path that the other one has: a mount is seen in the namespace of its own only.
    const enter = this.#home === home ? '' : 'mount --bind "$1" "$HOME" && ';
    const script = `${enter}cd "$2" && exec "$3" serve --port ${LAPTOP_PORT} --hostname 127.0.0.1`;
    const args = ['netns', 'exec', this.#namespace, 'sh', '-c', script, 'sh', this.#home, directory, PINNED_OPENCODE];
    this.#opencode = spawn('ip', args, { env: { ...env }, stdio: 'ignore' });
    await once(this.#opencode, 'spawn');
    if (this.#door === undefined) await this.#openDoor();
    const health = await until(
      'an opencode in a namespace to be healthy',
      () => this.json('/global/health').catch(() => undefined),
      START_LIMIT_MS,
    );
    this.#version = (health as { readonly version: string }).version;
  }

  async stop(): Promise<void> {
    const opencode = this.#opencode;
    if (opencode === undefined || opencode.exitCode !== null || opencode.signalCode !== null) return;
    const exited = once(opencode, 'exit');
    opencode.kill();
    await within(exited, 'an opencode in a namespace to exit');
  }

  async createSession(): Promise<void> {
    const limits = { timeoutMs: START_LIMIT_MS, maxBytes: 1_000_000 };
    await exchange(this.#connection, '/session', { method: 'POST', body: '{"title":"of both"}' }, limits);
  }

  json(path: string): Promise<unknown> {
    return requestJson(this.#connection, path, { timeoutMs: 2_000, maxBytes: 8_000_000 });
  }

  down(): void {
    this.#down = true;
    for (const socket of this.#open) socket.destroy();
  }

  describe(): string {
    return `opencode ${this.#version} pid ${this.#opencode?.pid} in ${this.#namespace}`;
  }

  /** What runs in the namespace ends with it. */
  close(): void {
    this.down();
    this.#door?.kill('SIGKILL');
    this.#opencode?.kill('SIGKILL');
  }

  async #openDoor(): Promise<void> {
    const args = ['netns', 'exec', this.#namespace, process.execPath, '-e', DOOR, this.#socket];
    const door = spawn('ip', args, { stdio: ['pipe', 'pipe', 'inherit'], env: { PATH: process.env['PATH'] ?? '' } });
    this.#door = door;
    await within(once(door.stdout, 'data'), 'the way into a namespace to open');
  }

  async #connect(): Promise<Socket> {
    const connected = deferred<void>();
    const socket = connect(this.#socket, () => connected.resolve());
    socket.on('error', (error) => connected.reject(error));
    await connected.promise;
    return socket;
  }
}
