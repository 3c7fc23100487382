import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { basicAuth, jsonOf, requestJson } from '../json-request.ts';
import { LoggedChild } from '../logged-child.ts';
import { PREVIEW_OPENCODE } from './opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from './opencode-sandbox.ts';
import { freePort } from '../ports.ts';
import { until } from '../wait.ts';

const run = promisify(execFile);

/** The median start takes 0.6 s, and many times that if several programs share two cores. */
const START_LIMIT_MS = 90_000;

/** Timeout of one health check. */
const HEALTH_TIMEOUT_MS = 500;

/** SIGTERM ends it within 70 ms, even in a turn; with an open event stream it exits after 20 s. */
const EXIT_LIMIT_MS = 40_000;

export interface PreviewOptions extends SandboxOptions {
  /** `serve` listens here; default a free port. A `service` chooses its own: 4096, or the next free one. */
  readonly port?: number;
  /**
   * How clients of this home find it: `true` is `serve --register`; `service` is `service start`, which spawns a detached process on a
   * port of its choice. Both write `server.json` into `stateDir`. Default: not at all.
   */
  readonly registered?: boolean | 'service';
  /** Runs it in another network namespace. `api` and `json` do not reach it there, so it must be registered. */
  readonly prefix?: readonly string[];
}

export async function startPreview(options: PreviewOptions = {}): Promise<Preview> {
  const sandbox = await openSandbox(options);
  try {
    const stateDir = await writeConfiguration(sandbox, options);
    const server = new Preview(sandbox, options, stateDir, options.port ?? (await freePort()));
    await server.start();
    return server;
  } catch (error) {
    await sandbox.close();
    throw error;
  }
}

/** The preview ignores OPENCODE_CONFIG and OPENCODE_PASSWORD, so this writes both into the home. Returns the state directory. */
async function writeConfiguration({ home, env }: OpencodeSandbox, options: PreviewOptions): Promise<string> {
  const configDir = join(home, '.config', 'opencode');
  const stateDir = join(home, '.local', 'state', 'opencode');
  await mkdir(configDir, { recursive: true });
  await mkdir(stateDir, { recursive: true });
  const config = join(configDir, 'opencode.json');
  // Another server in the same home keeps the configuration unless it has its own model.
  if (!existsSync(config) || options.model) await copyFile(env['OPENCODE_CONFIG'] ?? '', config);
  if (options.password !== undefined) await writeFile(join(stateDir, 'password'), options.password, { mode: 0o600 });
  return stateDir;
}

/** A real server of the preview of OpenCode 2. */
export class Preview implements AsyncDisposable {
  /** A git repository. The server starts in it and loads it only when a request names it. */
  readonly directory: string;
  readonly home: string;
  /** Where it keeps `password` and `server.json`. */
  readonly stateDir: string;
  /** The environment for other programs in the same home. */
  readonly env: Readonly<Record<string, string>>;
  readonly version: string = '1.18.18';
  url: string;
  password = '';
  /** The process id of the running server, or of the last one. */
  pid = 0;
  readonly #sandbox: OpencodeSandbox;
  readonly #registered: boolean | 'service';
  readonly #prefix: readonly string[];
  #child: LoggedChild | undefined;
  #closing: Promise<void> | undefined;

  constructor(sandbox: OpencodeSandbox, options: PreviewOptions, stateDir: string, port: number) {
    this.#sandbox = sandbox;
    this.#registered = options.registered ?? false;
    this.#prefix = options.prefix ?? [];
    this.url = `http://127.0.0.1:${port}`;
    this.directory = sandbox.directory;
    this.home = sandbox.home;
    this.stateDir = stateDir;
    this.env = sandbox.env;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Request headers that the server requires. */
  get headers(): Readonly<Record<string, string>> {
    return basicAuth(this.password);
  }

  get running(): boolean {
    return this.#registered === 'service'
      ? this.pid !== 0 && existsSync(`/proc/${this.pid}/exe`)
      : this.#child?.running === true;
  }

  async start(): Promise<void> {
    try {
      if (this.#registered === 'service') await this.#startService();
      else await this.#serve();
      const what = (): string => `the preview at ${this.url} to be healthy:\n${this.#child?.output.slice(-4_000)}`;
      await until(what, () => this.#isHealthy(), START_LIMIT_MS);
    } catch (error) {
      await this.kill9();
      throw error;
    }
  }

  async #serve(): Promise<void> {
    const command = [...this.#prefix, PREVIEW_OPENCODE, 'serve', ...(this.#registered ? ['--register'] : [])];
    const [program, ...args] = [...command, '--hostname', '127.0.0.1', '--port', String(this.port)];
    const child = spawn(program, args, { cwd: this.directory, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    await once(child, 'spawn');
    this.#child = new LoggedChild(child);
    this.pid = this.#child.pid;
  }

  /** The service inherits the sandbox's TMPDIR, by which the sandbox finds and ends it. */
  async #startService(): Promise<void> {
    await run(PREVIEW_OPENCODE, ['service', 'start'], { cwd: this.directory, env: this.env, timeout: START_LIMIT_MS });
    const { url, pid } = await this.#readServerFile();
    this.url = url;
    this.pid = pid;
  }

  async #readServerFile(): Promise<{ readonly url: string; readonly pid: number }> {
    return JSON.parse(await readFile(join(this.stateDir, 'server.json'), 'utf8'));
  }

  async #isHealthy(): Promise<boolean> {
    if (!this.running) throw new Error(`the preview exited before it was healthy:\n${this.#child?.output}`);
    try {
      this.password = await readFile(join(this.stateDir, 'password'), 'utf8');
      // A server in another namespace cannot be reached, but it writes server.json only once it answers.
      if (this.#prefix.length === 0) {
        const health = { headers: this.headers, method: 'GET', timeoutMs: HEALTH_TIMEOUT_MS };
        if (!(await requestJson(new URL('/api/health', this.url), health)).ok) return false;
      }
      // `serve --register` answers before it writes the file, and a killed server leaves its file behind.
      return this.#registered === false || (await this.#readServerFile()).pid === this.pid;
    } catch {
      return false;
    }
  }

  /** A bounded request to this server with its password; a body is sent as JSON. */
  api(path: string, { method = 'GET', body }: { method?: string; body?: unknown } = {}): Promise<Response> {
    return requestJson(new URL(path, this.url), { headers: this.headers, method, body, timeoutMs: START_LIMIT_MS });
  }

  /** As `api`; rejects unless the answer is 2xx JSON. */
  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    return jsonOf(await this.api(path, { method, body }));
  }

  /** SIGTERM; resolves when it has exited, after 20 s with an open event stream. */
  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  /** SIGKILL; resolves when it has exited. An open turn stays open in the store, and `server.json` stays. */
  kill9(): Promise<void> {
    return this.#end('SIGKILL');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (!this.running) return;
    process.kill(this.pid, signal);
    await until(`the preview ${this.pid} to exit on ${signal}`, () => !this.running, EXIT_LIMIT_MS);
  }

  /** Stops it if it runs, then starts it with the same directories and password, and the same port except for `service`. */
  async restart(): Promise<void> {
    if (this.#closing) throw new Error('cannot restart a preview that was closed');
    await this.stop();
    await this.start();
  }

  /** Version, pid and URL, for a suite's log. */
  describe(): string {
    return `the preview of OpenCode 2 (${this.version}) pid ${this.pid} at ${this.url}`;
  }

  close(): Promise<void> {
    return (this.#closing ??= this.kill9().then(() => this.#sandbox.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
