import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Check, DoctorReport, Todo } from '../../src/doctor/report.ts';
import { CONNECTED_SCRIPT } from '../rig/connected-child.ts';
import { type FakeLocalApi, fakePeer, startFakeLocalApi } from '../rig/fake-local-api.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { inside } from '../rig/namespaces.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A healthy machine: a home, an instance that answers, a tailscaled, the programs on the PATH. */
export interface DoctorStage extends AsyncDisposable {
  readonly home: string;
  readonly registry: Registry;
  readonly desk: FakeOpencode;
  readonly tailscaled: FakeLocalApi;
  readonly nodePort: number;
  /** The environment of every program; tests change it. */
  readonly env: Record<string, string>;
  /** The first folder of the PATH. */
  readonly bin: string;
  doctor(
    args?: readonly string[],
    where?: { readonly env: Readonly<Record<string, string>>; readonly namespace: string },
  ): Promise<{ readonly code: number | null; readonly report: DoctorReport }>;
  /** Runs a command of the doctor's. */
  type(command: string, input?: string): Promise<Ended>;
  /** Writes a file in the home, and creates its folders. */
  put(name: string, text: string, mode?: number): Promise<string>;
}

/** This machine's address in the tailnet. */
export const TAILNET_SELF = '127.0.0.2';

export async function openDoctorStage(): Promise<DoctorStage> {
  const temp = tempDir('opencode-mcp-doctor');
  const home = temp.path;
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
  const run = async (
    argv: readonly [string, ...string[]],
    input: string,
    its: Readonly<Record<string, string>> = env,
  ): Promise<Ended> => {
    const [program, ...args] = argv;
    const child = spawn(program, args, { env: its, cwd: home, stdio: ['pipe', 'pipe', 'pipe'] });
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
    async doctor(args = [], where) {
      const argv = [process.execPath, SERVER_SCRIPT, 'doctor', '--json', ...args] as const;
      const { code, stdout, stderr } = await (where === undefined
        ? run(argv, '')
        : run([...inside(where.namespace), ...argv], '', where.env));
      if (stdout === '') throw new Error(`the doctor said nothing: ${stderr}`);
      const report: DoctorReport = JSON.parse(stdout);
      return { code, report };
    },
    type: (command, input = '') => run(['sh', '-c', command], input),
    async put(name, text, mode = 0o600) {
      const path = join(home, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
      await chmod(path, mode);
      return path;
    },
    async [Symbol.asyncDispose]() {
      await desk.close();
      await tailscaled.close();
      await temp.close();
    },
  };
}

/** The line of the report with this subject and text, in any section. */
export function lineOf({ sections }: DoctorReport, subject: string | RegExp, says: RegExp): Check | undefined {
  const isIt = (one: Check): boolean =>
    (subject instanceof RegExp ? subject.test(one.subject) : one.subject === subject) && says.test(one.text);
  const all = sections.flatMap(({ checks }) => checks);
  return [...all, ...all.flatMap(({ details = [] }) => details)].find(isIt);
}

/** The advice with this text. Two lines with the same advice have it once. */
export function todoThat(says: RegExp, { todo }: DoctorReport): Todo & { readonly said: string } {
  const all = todo.map((one) => {
    const { text, command } = one;
    return { ...one, said: command === undefined ? text : `${text}${text.endsWith(':') ? '' : ':'} ${command}` };
  });
  const found = all.find(({ said }) => says.test(said));
  if (found === undefined) throw new Error(`Expected ${says} as an advice, got ${JSON.stringify(all, null, 1)}`);
  return found;
}

/** Ends what a test has started, last first. */
export class Kept implements AsyncDisposable {
  readonly #ends: (() => unknown)[] = [];

  use<T extends AsyncDisposable>(one: T): T {
    this.defer(() => one[Symbol.asyncDispose]());
    return one;
  }

  defer(end: () => unknown): void {
    this.#ends.push(end);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends.splice(0).toReversed()) await end();
  }
}
