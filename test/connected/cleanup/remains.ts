import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { onTestFinished } from 'vitest';

import { identifyProcess } from '../../../src/connected/process-table.ts';
import { type RunState, runStateFolder, runStatePath } from '../../../src/connected/run-state.ts';
import type { CommandOptions, ExitCode, Places } from '../../../src/connected/status/places.ts';
import { freePort } from '../../rig/ports.ts';
import { tempDir } from '../../rig/temp.ts';

/** A registry directory and a state directory with the remains of instances, as the programs write them. */
export interface Remains extends AsyncDisposable {
  readonly registry: string;
  readonly stateDir: string;
  readonly path: string;
  places(extra?: Partial<Places>): Places;
  /** Writes `<name>.json` and, with `claim`, the claim of a process that has ended, or of `claim.pid`. */
  register(name: string, options?: RegisterOptions): Promise<{ readonly id: string; readonly port: number }>;
  claim(name: string, id: string, pid?: number): Promise<void>;
  password(id: string, options?: { readonly ageMs?: number }): Promise<string>;
  state(fields: Partial<RunState> & Pick<RunState, 'id'>): Promise<string>;
  /** Starts a process that runs until the end of the test. `started` is its start time as a state file has it. */
  process(): Promise<RunningProcess>;
  /** Lists every file of the registry directory, `.credentials` included; sorted. */
  files(): Promise<string[]>;
}

export interface RegisterOptions {
  readonly id?: string;
  readonly port?: number;
  readonly claim?: 'dead' | { readonly pid: number };
  readonly password?: boolean;
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** A PID above the maximum of Linux, so no process has it. */
export const NO_PID = 4_194_305;
export const HOUR_MS = 3_600_000;

interface RunningProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly started: string | undefined;
}

/** Runs a command, and resolves with its output and exit code. */
export async function outputOf(
  run: (options: Pick<CommandOptions, 'out' | 'signal'>) => Promise<ExitCode>,
): Promise<{ readonly text: string; readonly code: ExitCode }> {
  let text = '';
  const code = await run({ out: (chunk) => (text += chunk), signal: new AbortController().signal });
  return { text, code };
}

/** Creates the directories, which are removed after the test. */
export async function openRemains(): Promise<Remains> {
  const temp = tempDir('remains');
  const registry = join(temp.path, 'registry');
  const stateDir = join(temp.path, 'state');
  await mkdir(join(registry, '.credentials'), { recursive: true, mode: 0o700 });
  await mkdir(runStateFolder(stateDir), { recursive: true, mode: 0o700 });
  const children: ChildProcess[] = [];
  let count = 0;

  async function publish(path: string, text: string, mode: number): Promise<void> {
    await writeFile(`${path}.new`, text, { mode });
    await rename(`${path}.new`, path);
  }
  async function claim(name: string, id: string, pid?: number): Promise<void> {
    const started = pid === undefined ? '1' : ((await identifyProcess(pid))?.started ?? '-');
    await publish(join(registry, `.${name}.claim`), `${id} ${pid ?? NO_PID} ${started} ${hostname()}\n`, 0o600);
  }
  async function password(id: string, { ageMs = 0 } = {}): Promise<string> {
    const path = join(registry, '.credentials', id);
    await writeFile(path, 'a secret\n', { mode: 0o600 });
    const modifiedAt = new Date(Date.now() - ageMs);
    await utimes(path, modifiedAt, modifiedAt);
    return path;
  }

  async function close(): Promise<void> {
    for (const child of children) child.kill('SIGKILL');
    await temp.close();
  }
  onTestFinished(close);

  return {
    registry,
    stateDir,
    path: temp.path,
    claim,
    password,
    places: (extra = {}) => ({
      opencodeStateDir: join(temp.path, 'opencode'),
      registryDir: { path: registry, explicit: true },
      stateDir,
      relayRegistryDir: { path: registry, explicit: true },
      healthCheckTimeoutMs: 20_000,
      healthConcurrency: 16,
      credentialRules: [],
      ...extra,
    }),
    async register(name, options = {}) {
      const id = options.id ?? `id-${(count += 1)}`;
      const port = options.port ?? (await freePort());
      if (options.claim !== undefined) {
        await claim(name, id, options.claim === 'dead' ? undefined : options.claim.pid);
      }
      if (options.password === true) await password(id);
      const fields = {
        name,
        hostname: hostname(),
        port,
        localPort: port,
        cwd: '/home/user/project',
        id,
        ...options.fields,
      };
      await publish(join(registry, `${name}.json`), `${JSON.stringify(fields)}\n`, 0o644);
      return { id, port };
    },
    async state(fields) {
      const path = runStatePath(stateDir, fields.id);
      const state: RunState = {
        name: fields.id,
        pid: NO_PID,
        started: '1',
        opencodePid: NO_PID,
        opencodeStarted: '1',
        port: 4096,
        directory: '/home/user/project',
        registryFile: join(registry, `${fields.id}.json`),
        logFile: join(stateDir, 'logs', 'opencode-connected.log'),
        startedAt: '2026-01-01T00:00:00Z',
        version: '0.1.0',
        ...fields,
      };
      await publish(path, JSON.stringify(state), 0o600);
      return path;
    },
    async process() {
      const child = spawn('sleep', ['600'], { stdio: 'ignore', env: { PATH: process.env['PATH'], TMPDIR: temp.tmp } });
      children.push(child);
      await new Promise((resolve) => child.once('spawn', resolve));
      const { pid = 0 } = child;
      return { child, pid, started: (await identifyProcess(pid))?.started };
    },
    async files() {
      const folder = join(registry, '.credentials');
      const passwords = existsSync(folder) ? (await readdir(folder)).map((name) => `.credentials/${name}`) : [];
      return [...(await readdir(registry)).filter((name) => name !== '.credentials'), ...passwords].toSorted();
    },
    [Symbol.asyncDispose]: close,
  };
}
