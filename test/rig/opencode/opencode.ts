import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

import { basicAuth, jsonOf, requestJson } from '../json-request.ts';
import { LoggedChild } from '../logged-child.ts';
import { PINNED_OPENCODE } from './opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from './opencode-sandbox.ts';
import { freePort } from '../ports.ts';

/** The median start takes 2.3 s; with several on two cores it took 20 s. */
const START_LIMIT_MS = 90_000;

/** In its first 450 ms opencode may accept a request and never answer it: give up early and retry. */
const HEALTH_TIMEOUT_MS = 500;

/** SIGTERM ends `serve` immediately; one that still runs after this is stuck. */
const EXIT_LIMIT_MS = 5_000;

export interface OpencodeOptions extends SandboxOptions {
  /** Default: the pinned version. */
  readonly binary?: string;
  readonly port?: number;
}

export async function startOpencode(options: OpencodeOptions = {}): Promise<Opencode> {
  const sandbox = await openSandbox(options);
  try {
    const server = new Opencode(sandbox, options, options.port ?? (await freePort()));
    await server.start();
    return server;
  } catch (error) {
    await sandbox.close();
    throw error;
  }
}

/** A real `opencode serve`. */
export class Opencode implements AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly directory: string;
  readonly home: string;
  readonly password: string | undefined;
  /** The environment of another opencode of the same person in the same project. */
  readonly env: Readonly<Record<string, string>>;
  /** Request headers that the server demands; empty without a password. */
  readonly headers: Readonly<Record<string, string>>;
  version = 'unknown';
  readonly #sandbox: OpencodeSandbox;
  readonly #binary: string;
  #child: LoggedChild | undefined;
  #closing: Promise<void> | undefined;

  constructor(sandbox: OpencodeSandbox, options: OpencodeOptions, port: number) {
    this.#sandbox = sandbox;
    // It starts in the project's directory.
    this.#binary = resolve(options.binary ?? PINNED_OPENCODE);
    this.url = `http://127.0.0.1:${port}`;
    this.port = port;
    this.directory = sandbox.directory;
    this.home = sandbox.home;
    this.env = sandbox.env;
    this.password = options.password;
    this.headers = basicAuth(options.password);
  }

  /** The pid of the running process, or else of the last one. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get running(): boolean {
    return this.#child?.running === true;
  }

  async start(): Promise<void> {
    const args = ['serve', '--port', String(this.port), '--hostname', '127.0.0.1', '--print-logs'];
    const child = spawn(this.#binary, args, { cwd: this.directory, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    await once(child, 'spawn');
    this.#child = new LoggedChild(child);
    try {
      this.version = await this.#child.until(`${this.url} to be healthy`, () => this.#health(), START_LIMIT_MS);
    } catch (error) {
      await this.kill('SIGKILL');
      throw error;
    }
  }

  async #health(): Promise<string | undefined> {
    try {
      const response = await fetch(`${this.url}/global/health`, {
        headers: this.headers,
        signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS),
      });
      const { healthy, version } = await jsonOf<{ readonly healthy?: boolean; readonly version?: string }>(response);
      return healthy === true ? version : undefined;
    } catch {
      return undefined;
    }
  }

  /** A bounded request to this server with its credential and `directory`; a body is sent as JSON. */
  request(method: string, path: string, body?: unknown): Promise<Response> {
    const url = new URL(path, this.url);
    if (!url.searchParams.has('directory')) url.searchParams.set('directory', this.directory);
    return requestJson(url, { headers: this.headers, method, body, timeoutMs: START_LIMIT_MS });
  }

  /** As `request`; rejects unless the answer is 2xx JSON. */
  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    return jsonOf(await this.request(method, path, body));
  }

  /** Signals opencode alone; resolves when it has exited. SIGSTOP and SIGCONT resolve at once. */
  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (signal === 'SIGSTOP' || signal === 'SIGCONT') this.#child?.signal(signal);
    else await this.#child?.end(signal, EXIT_LIMIT_MS);
  }

  /** Ends it if it runs, then starts it on the same port with the same directories. */
  async restart(): Promise<void> {
    if (this.#closing) throw new Error('cannot restart an opencode that was closed');
    await this.kill();
    await this.start();
  }

  /** Version, pid and URL, for a suite's log. */
  describe(): string {
    return `opencode ${this.version} pid ${this.pid} at ${this.url}`;
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#end());
  }

  async #end(): Promise<void> {
    // A stopped process handles SIGTERM only once it continues.
    await this.kill('SIGCONT');
    await this.kill().catch(() => this.kill('SIGKILL'));
    await this.#sandbox.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
