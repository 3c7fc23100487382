import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import type { Dial } from '../../../src/base/dial.ts';
import { type Connection, exchange, requestJson } from '../../../src/http/exchange.ts';
import { LoggedChild } from '../logged-child.ts';
import { missingForNamespaces } from './namespaces.ts';
import { isSkipped } from '../needed.ts';
import { PINNED_OPENCODE } from '../opencode/opencode-binaries.ts';
import { createProject, openSandbox, type OpencodeSandbox } from '../opencode/opencode-sandbox.ts';
import { Namespaces } from './tailnet-namespaces.ts';
import { tempDir } from '../temp.ts';
import { deferred, within } from '../wait.ts';

/** The port of each laptop's opencode, on its own loopback. */
export const LAPTOP_PORT = 4096;

const START_LIMIT_MS = 90_000;

/** In its first 450 ms opencode may accept a request and never answer it: give up and retry. */
const HEALTH_TIMEOUT_MS = 2_000;

/** The script of a laptop's socket proxy: forwards a socket file, which every namespace can reach, to its opencode. */
const SOCKET_PROXY = `
const net = require('node:net');
net.createServer({ allowHalfOpen: true }, (outside) => {
  const inside = net.connect(${LAPTOP_PORT}, '127.0.0.1');
  outside.pipe(inside).pipe(outside);
  for (const [one, other] of [[outside, inside], [inside, outside]]) one.on('error', () => other.destroy());
}).listen(process.argv[1], () => console.log('open'));
process.stdin.resume().on('end', () => process.exit());`;

/** Two machines with equal host name, user, paths and ports; the second home is a copy of the first, or the same one. */
export interface Twins extends AsyncDisposable {
  readonly laptops: readonly [Laptop, Laptop];
  readonly directory: string;
}

/** For `describe.skipIf`. */
export function cannotMakeLaptops(): boolean {
  return isSkipped(missingForNamespaces());
}

export async function startTwins(home: 'copied' | 'shared', password: string, serial: number): Promise<Twins> {
  const temp = tempDir('opencode-twins');
  const firstHome = join(temp.path, 'home');
  await createProject(join(firstHome, 'work'));
  const sandbox = await openSandbox({ home: firstHome, directory: join(firstHome, 'work'), password });
  const namespaces = await Namespaces.open(serial);
  const machines: Laptop[] = [];
  const close = async (): Promise<void> => {
    for (const machine of machines) machine.close();
    await namespaces.close();
    await sandbox.close();
    await temp.close();
  };
  try {
    // The database needs a session before it is copied.
    const first = new Laptop(await namespaces.machine(2), sandbox, firstHome, join(temp.path, 'first.sock'), password);
    machines.push(first);
    await first.start();
    await first.createSession();
    const secondHome = home === 'shared' ? firstHome : join(temp.path, 'copy');
    if (secondHome !== firstHome) {
      await first.stop();
      await cp(firstHome, secondHome, { recursive: true, preserveTimestamps: true });
      await first.start();
    }
    const second = new Laptop(
      await namespaces.machine(3),
      sandbox,
      secondHome,
      join(temp.path, 'second.sock'),
      password,
    );
    machines.push(second);
    await second.start();
    return { laptops: [first, second], directory: sandbox.directory, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A real opencode with the network and the home of its own machine. */
class Laptop {
  /** Connects the test to this machine, since every laptop has the same address. */
  readonly dial: Dial;
  readonly #namespace: string;
  readonly #sandbox: OpencodeSandbox;
  readonly #home: string;
  readonly #socket: string;
  readonly #connection: Connection;
  readonly #open = new Set<Socket>();
  #opencode: LoggedChild | undefined;
  #socketProxy: ChildProcess | undefined;
  #down = false;
  #version = '';

  constructor(namespace: string, sandbox: OpencodeSandbox, home: string, socket: string, password: string) {
    this.#namespace = namespace;
    this.#sandbox = sandbox;
    this.#home = home;
    this.#socket = socket;
    this.#connection = {
      // In a namespace the holder of the port is invisible, so only a configured endpoint gets a password there.
      endpoint: {
        url: `http://127.0.0.1:${LAPTOP_PORT}`,
        route: 'loopback',
        dial: () => this.#connect(),
        configured: true,
      },
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
    // Both homes have the same path, since each mount is visible only in its own namespace.
    const enter = this.#home === home ? '' : 'mount --bind "$1" "$HOME" && ';
    const script = `${enter}cd "$2" && exec "$3" serve --port ${LAPTOP_PORT} --hostname 127.0.0.1`;
    const args = ['netns', 'exec', this.#namespace, 'sh', '-c', script, 'sh', this.#home, directory, PINNED_OPENCODE];
    this.#opencode = new LoggedChild(spawn('ip', args, { env, stdio: ['ignore', 'pipe', 'pipe'] }));
    if (this.#socketProxy === undefined) await this.#startSocketProxy();
    const health = await this.#opencode.until(
      'an opencode in a namespace to be healthy',
      () => this.json('/global/health', HEALTH_TIMEOUT_MS).catch(() => undefined),
      START_LIMIT_MS,
    );
    this.#version = (health as { readonly version: string }).version;
  }

  async stop(): Promise<void> {
    await this.#opencode?.end('SIGTERM');
  }

  async createSession(): Promise<void> {
    const limits = { timeoutMs: START_LIMIT_MS, maxBytes: 1_000_000 };
    await exchange(this.#connection, '/session', { method: 'POST', body: '{"title":"of both"}' }, limits);
  }

  /** Resolves with a parsed answer of its opencode, also while the laptop is down. */
  json(path: string, timeoutMs = START_LIMIT_MS): Promise<unknown> {
    return requestJson(this.#connection, path, { timeoutMs, maxBytes: 8_000_000 });
  }

  /** Refuses new connections and breaks the open ones of `dial`. */
  down(): void {
    this.#down = true;
    for (const socket of this.#open) socket.destroy();
  }

  describe(): string {
    return `opencode ${this.#version} pid ${this.#opencode?.pid} in ${this.#namespace}`;
  }

  /** Ends all programs in the namespace. */
  close(): void {
    this.down();
    this.#socketProxy?.kill('SIGKILL');
    this.#opencode?.signal('SIGKILL');
  }

  async #startSocketProxy(): Promise<void> {
    const args = ['netns', 'exec', this.#namespace, process.execPath, '-e', SOCKET_PROXY, this.#socket];
    const socketProxy = spawn('ip', args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH: process.env['PATH'] ?? '' },
    });
    this.#socketProxy = socketProxy;
    await within(once(socketProxy.stdout, 'data'), 'the socket proxy of a namespace to listen');
  }

  async #connect(): Promise<Socket> {
    const connected = deferred<void>();
    const socket = connect(this.#socket, () => connected.resolve());
    socket.on('error', (error) => connected.reject(error));
    await connected.promise;
    return socket;
  }
}
