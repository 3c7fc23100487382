import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

import { PINNED_OPENCODE } from './opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from './opencode-sandbox.ts';
import { freePort } from './ports.ts';
import { until, within } from './wait.ts';

/** Median start is 2.3 s; with two cores shared by several it was 20 s. */
const START_LIMIT_MS = 90_000;

/** In its first 450 ms opencode may accept a request and never answer it: give up early and retry. */
const HEALTH_TIMEOUT_MS = 500;

/** SIGTERM ends `serve` at once; after this it is stuck. */
const EXIT_LIMIT_MS = 5_000;

/** Characters of the child's output that are kept. */
const LOG_LIMIT = 400_000;

export interface OpencodeOptions extends SandboxOptions {
  /** Another version than the pinned one. */
  readonly binary?: string;
  readonly port?: number;
  /** After `serve --port … --hostname 127.0.0.1 --print-logs`. */
  readonly args?: readonly string[];
}

/** A real `opencode serve`, answering. */
export interface Opencode extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** The running process's, or the last one's. */
  readonly pid: number;
  readonly version: string;
  readonly directory: string;
  readonly home: string;
  readonly password: string | undefined;
  /** The environment of another opencode of the same person in the same project. */
  readonly env: Readonly<Record<string, string>>;
  readonly running: boolean;
  /** Request headers that the server demands; empty without a password. */
  readonly headers: Readonly<Record<string, string>>;
  /** A bounded request to this server with its credential and `directory`; a body is sent as JSON. */
  request(method: string, path: string, body?: unknown): Promise<Response>;
  /** As `request`; rejects unless the answer is 2xx JSON. */
  json<T>(method: string, path: string, body?: unknown): Promise<T>;
  /** Sends the signal (default SIGTERM) to opencode alone and resolves when it has exited. SIGSTOP and SIGCONT resolve at once. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Ends it if it runs, then starts it on the same port with the same directories, and resolves when it answers. */
  restart(): Promise<void>;
  /** Version, pid and URL, for a suite's log. */
  describe(): string;
  close(): Promise<void>;
}

export async function startOpencode(options: OpencodeOptions = {}): Promise<Opencode> {
  const sandbox = await openSandbox(options);
  try {
    const server = new Serve(sandbox, options, options.port ?? (await freePort()));
    await server.start();
    return server;
  } catch (error) {
    await sandbox.close();
    throw error;
  }
}

class Serve implements Opencode {
  readonly url: string;
  readonly port: number;
  readonly directory: string;
  readonly home: string;
  readonly password: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  version = 'unknown';
  readonly #sandbox: OpencodeSandbox;
  readonly #binary: string;
  readonly #args: readonly string[];
  #child: ChildProcess | undefined;
  #logs = '';
  #closing: Promise<void> | undefined;

  constructor(sandbox: OpencodeSandbox, options: OpencodeOptions, port: number) {
    this.#sandbox = sandbox;
    // It starts in the project's directory.
    this.#binary = resolve(options.binary ?? PINNED_OPENCODE);
    this.#args = ['serve', '--port', String(port), '--hostname', '127.0.0.1', '--print-logs', ...(options.args ?? [])];
    this.url = `http://127.0.0.1:${port}`;
    this.port = port;
    this.directory = sandbox.directory;
    this.home = sandbox.home;
    this.env = sandbox.env;
    this.password = options.password;
    this.headers =
      options.password === undefined
        ? {}
        : { authorization: `Basic ${Buffer.from(`opencode:${options.password}`).toString('base64')}` };
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start(): Promise<void> {
    const child = spawn(this.#binary, this.#args, {
      cwd: this.directory,
      env: this.env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await once(child, 'spawn');
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#logs = (this.#logs + text).slice(-LOG_LIMIT)));
    }
    try {
      this.version = await until(`opencode on port ${this.port} to be healthy`, () => this.#health(), START_LIMIT_MS);
    } catch (error) {
      await this.kill('SIGKILL');
      throw new Error(`cannot start ${this.#binary} ${this.#args.join(' ')}:\n${this.#logs.slice(-4_000)}`, {
        cause: error,
      });
    }
  }

  async #health(): Promise<string | undefined> {
    if (!this.running)
      throw new Error(`opencode exited with ${this.#child?.exitCode ?? this.#child?.signalCode} before it was healthy`);
    try {
      const response = await fetch(`${this.url}/global/health`, {
        headers: this.headers,
        signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS),
      });
      const body: { readonly healthy?: boolean; readonly version?: string } = JSON.parse(await response.text());
      return response.ok && body.healthy === true ? body.version : undefined;
    } catch {
      return undefined;
    }
  }

  async request(method: string, path: string, body?: unknown): Promise<Response> {
    const url = new URL(path, this.url);
    if (!url.searchParams.has('directory')) url.searchParams.set('directory', this.directory);
    return fetch(url, {
      method,
      headers: { ...this.headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(START_LIMIT_MS),
    });
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.request(method, path, body);
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path} gave ${response.status}: ${text.slice(0, 500)}`);
    try {
      const value: T = JSON.parse(text);
      return value;
    } catch (error) {
      throw new Error(`${method} ${path} gave ${response.headers.get('content-type')}: ${text.slice(0, 200)}`, {
        cause: error,
      });
    }
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#child;
    if (!child || !this.running) return;
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') {
      child.kill(signal);
      return;
    }
    const exited = once(child, 'exit');
    child.kill(signal);
    await within(exited, `opencode ${child.pid} to exit on ${signal}`, EXIT_LIMIT_MS);
  }

  async restart(): Promise<void> {
    if (this.#closing) throw new Error('cannot restart an opencode that was closed');
    await this.kill();
    await this.start();
  }

  describe(): string {
    return `opencode ${this.version} pid ${this.pid} at ${this.url}`;
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#end());
  }

  async #end(): Promise<void> {
    // A stopped process handles SIGTERM only once it continues.
    if (this.running) this.#child?.kill('SIGCONT');
    await this.kill('SIGTERM').catch(() => this.kill('SIGKILL'));
    await this.#sandbox.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
