import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Exit, LoggedChild } from '../logged-child.ts';
import { PINNED_OPENCODE } from '../opencode/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox, type SandboxOptions } from '../opencode/opencode-sandbox.ts';
import { processesIn } from '../processes.ts';

/** The wrapper's built script. */
export const CONNECTED_SCRIPT = fileURLToPath(new URL('../../../dist/opencode-connected.js', import.meta.url));

/** As for a real opencode: several wrappers may share two cores. */
const START_LIMIT_MS = 90_000;

export interface ConnectedOptions extends SandboxOptions {
  /** Default: `--headless`. */
  readonly args?: readonly string[];
  /** Path of an opencode; default: the pinned one. */
  readonly opencode?: string;
  /** A command that replaces itself with the wrapper elsewhere, such as `ip netns exec …`. */
  readonly prefix?: readonly [string, ...string[]];
  /** Runs the wrapper in a terminal, whose output is in `output()`; the wrapper is then a child of the spawned process. */
  readonly inTerminal?: boolean;
  /** Default: a registry directory in the sandbox, which does not exist yet. */
  readonly registry?: string;
}

/** Runs a command in its own terminal and returns its exit code. Arguments must not contain single quotes. */
const IN_TERMINAL = ['/bin/sh', '-c', `exec script -qec "$(printf "'%s' " "$@")" /dev/null`, 'sh'] as const;

export interface Registered {
  readonly id: string;
  readonly name: string;
  readonly port: number;
  readonly localPort: number;
  readonly cwd: string;
  readonly hostname: string;
}

export async function startConnected(options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const sandbox = await openSandbox(options);
  const registry = options.registry ?? join(sandbox.home, 'registry');
  const env = connectedEnvironment(sandbox, registry, options);
  const prefix = [...(options.prefix ?? []), ...(options.inTerminal === true ? IN_TERMINAL : [])];
  const [program, ...args] = [...prefix, process.execPath, CONNECTED_SCRIPT] as const;
  const child = spawn(program, [...args, ...(options.args ?? ['--headless'])], {
    cwd: sandbox.directory,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new ConnectedChild(child, sandbox, registry, env);
}

/** Returns the wrapper's environment in a sandbox. */
export function connectedEnvironment(
  sandbox: OpencodeSandbox,
  registry: string,
  options: Pick<ConnectedOptions, 'opencode' | 'env'> = {},
): Readonly<Record<string, string>> {
  const { OPENCODE_SERVER_PASSWORD: _, ...env } = sandbox.env;
  return { OPENCODE_BIN: options.opencode ?? PINNED_OPENCODE, RELAY_REGISTRY_DIR: registry, ...env };
}

/** Lists all files below a folder, hidden ones included. */
export async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => !entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name));
}

/** A running process of the built wrapper. */
export class ConnectedChild implements AsyncDisposable {
  readonly registry: string;
  readonly directory: string;
  /** The wrapper's environment, for other programs of the same user. */
  readonly env: Readonly<Record<string, string>>;
  readonly #child: LoggedChild;
  readonly #sandbox: OpencodeSandbox;
  #closing: Promise<void> | undefined;

  constructor(child: ChildProcess, sandbox: OpencodeSandbox, registry: string, env: Readonly<Record<string, string>>) {
    this.#child = new LoggedChild(child);
    this.#sandbox = sandbox;
    this.registry = registry;
    this.directory = sandbox.directory;
    this.env = env;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get exited(): Promise<Exit> {
    return this.#child.exited;
  }

  /** Standard output and error so far. */
  output(): string {
    return this.#child.output;
  }

  /** Resolves with the wrapper's registration once it is written. */
  async registered(): Promise<Registered> {
    const readRegistration = async (): Promise<Registered | undefined> => {
      const state = await this.#state();
      if (state === undefined) return undefined;
      const found = parse(await readFile(state.registryFile, 'utf8').catch(() => '')) as Registered | undefined;
      // An earlier wrapper's registration may be there until this wrapper writes its own.
      return found?.id === state.id ? found : undefined;
    };
    return this.#child.until(`a registration in ${this.registry}`, readRegistration, START_LIMIT_MS);
  }

  /** Reads the password stored beside the registrations. */
  async password(): Promise<string> {
    const { id } = await this.registered();
    return (await readFile(join(this.registry, '.credentials', id), 'utf8')).trim();
  }

  /** Signals only the wrapper. */
  kill(signal: NodeJS.Signals): void {
    this.#child.signal(signal);
  }

  /** Lists leftovers: files in the registry and the state folder, and processes. */
  async left(): Promise<readonly string[]> {
    const files = await Promise.all([filesIn(this.registry), filesIn(this.#stateFolder)]);
    const pids = await processesIn(this.#sandbox.env['TMPDIR'] ?? '');
    return [...files.flat(), ...pids.map((pid) => `process ${pid}`)];
  }

  close(): Promise<void> {
    this.#child.signal('SIGKILL');
    return (this.#closing ??= this.#sandbox.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #stateFolder(): string {
    return join(this.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp', 'connected');
  }

  /** Reads this wrapper's state file; another wrapper may share the registry. */
  async #state(): Promise<{ readonly id: string; readonly registryFile: string } | undefined> {
    for (const path of await filesIn(this.#stateFolder)) {
      const text = await readFile(path, 'utf8').catch(() => '');
      const state = parse(text) as
        | { readonly id: string; readonly pid: number; readonly registryFile: string }
        | undefined;
      if (state?.pid === this.pid) return state;
    }
    return undefined;
  }
}

/** Returns undefined for an incomplete file. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
