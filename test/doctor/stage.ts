import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { onTestFinished } from 'vitest';

import type { Clock } from '../../src/base/clock.ts';
import { type LoadedSettings, loadSettings } from '../../src/config/load.ts';
import type { Examination } from '../../src/doctor/examine.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import type { Check, DoctorReport, Todo } from '../../src/doctor/report.ts';
import { CONNECTED_SCRIPT } from '../rig/programs/connected-child.ts';
import { fakePeer, startFakeLocalApi } from '../rig/fake/fake-local-api.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { inside } from '../rig/network/namespaces.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';

/** This machine's address in the tailnet. */
export const TAILNET_SELF = '127.0.0.2';

export type DoctorStage = Awaited<ReturnType<typeof openDoctorStage>>;

/** A healthy machine: a home, an instance that answers, a tailscaled, the programs on the PATH. */
export async function openDoctorStage() {
  const temp = tempDir('opencode-mcp-doctor');
  const home = temp.path;
  /** The first folder of the PATH. */
  const bin = join(home, 'bin');
  await mkdir(bin);
  await symlink(SERVER_SCRIPT, join(bin, 'opencode-mcp'));
  await symlink(CONNECTED_SCRIPT, join(bin, 'opencode-connected'));
  const registry = await openRegistry(join(home, 'registry'));
  const tailscaled = await startFakeLocalApi({
    status: { Self: fakePeer(1, { HostName: 'desk', DNSName: 'desk.tailnet.test.', TailscaleIPs: [TAILNET_SELF] }) },
  });
  const desk = await startFakeOpencode({ directory: '/home/ada/desk' });
  await registry.add({ name: 'desk', port: desk.port, cwd: desk.directory });
  const nodePort = await freePort();
  /** The environment of every program; tests change it. */
  const env: Record<string, string> = {
    PATH: `${bin}:${process.env['PATH'] ?? ''}`,
    HOME: home,
    TMPDIR: temp.tmp,
    LANG: 'C.UTF-8',
    RELAY_REGISTRY_DIR: registry.path,
    TAILSCALE_SOCKET: tailscaled.socketPath,
    OPENCODE_NODE_PORT: String(nodePort),
    OPENCODE_TAILNET_PORTS: String(await freePort()),
    HEALTH_CHECK_TIMEOUT_MS: '10000',
    ...NO_MULTICAST,
  };
  const run = async (argv: readonly [string, ...string[]], input = '', childEnv: Readonly<typeof env> = env) => {
    const [program, ...args] = argv;
    const child = spawn(program, args, { env: childEnv, cwd: home, stdio: ['pipe', 'pipe', 'pipe'] });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    const [code] = (await within(once(child, 'exit'), `${argv.join(' ')} to end`)) as [number | null];
    return { code, ...output };
  };
  return {
    home,
    registry,
    desk,
    tailscaled,
    nodePort,
    env,
    bin,
    async doctor(args: readonly string[] = [], where?: { readonly env: typeof env; readonly namespace: string }) {
      const argv = [process.execPath, SERVER_SCRIPT, 'doctor', '--json', ...args] as const;
      const { code, stdout, stderr } = await (where === undefined
        ? run(argv)
        : run([...inside(where.namespace), ...argv], '', where.env));
      if (stdout === '') throw new Error(`the doctor printed nothing: ${stderr}`);
      const report: DoctorReport = JSON.parse(stdout);
      return { code, report };
    },
    /** Runs a command that the doctor advises. */
    type: (command: string, input?: string) => run(['sh', '-c', command], input),
    /** Writes a file in the home, and creates its folders. */
    async put(name: string, text: string, mode = 0o600) {
      const path = join(home, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
      await chmod(path, mode);
    },
    async [Symbol.asyncDispose]() {
      await desk.close();
      await tailscaled.close();
      await temp.close();
    },
  };
}

/** The settings of a process with this home and environment. */
export function settingsOf(home: string, env: Readonly<Record<string, string>>): Promise<LoadedSettings> {
  const all = { HOME: home, ...NO_MULTICAST, ...env };
  return loadSettings({ argv: [], env: all, home, cwd: home, readFile: () => ({ text: '{}' }) });
}

/** An examination in this process. */
export async function examination(
  home: string,
  env: Readonly<Record<string, string>>,
  fleet: Fleet,
  clock: Clock,
): Promise<Examination> {
  const { settings } = await settingsOf(home, env);
  return {
    settings,
    problems: [],
    warnings: [],
    configFile: undefined,
    configPath: join(home, 'config.json'),
    fleet,
    clock,
    signal: new AbortController().signal,
    place: { home, platform: 'linux', env: { PATH: '/nowhere' } },
    execPath: process.execPath,
    script: join(home, 'opencode-mcp'),
    nodeVersion: process.version,
  };
}

/** The line of the report with this subject and text, in any section. */
export function lineOf({ sections }: DoctorReport, subject: string | RegExp, pattern: RegExp): Check | undefined {
  const matches = (check: Check): boolean =>
    (subject instanceof RegExp ? subject.test(check.subject) : check.subject === subject) && pattern.test(check.text);
  const checksOfReport = sections.flatMap(({ checks }) => checks);
  return [...checksOfReport, ...checksOfReport.flatMap(({ details = [] }) => details)].find(matches);
}

/** The advice whose text and command match. */
export function todoThat(pattern: RegExp, { todo }: DoctorReport): Todo {
  const advice = todo.find(({ text, command }) =>
    pattern.test(command === undefined ? text : `${text.replace(/:$/, '')}: ${command}`),
  );
  if (advice === undefined) throw new Error(`Expected the advice ${pattern}, got ${JSON.stringify(todo, null, 1)}`);
  return advice;
}

/** Disposes of `resource` when the test ends. */
export function disposeAtEnd<T extends AsyncDisposable>(resource: T): T {
  onTestFinished(() => resource[Symbol.asyncDispose]());
  return resource;
}
