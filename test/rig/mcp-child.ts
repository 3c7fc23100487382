import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import {
  CallToolResultSchema,
  JSONRPCMessageSchema,
  type CallToolResult,
  type ClientCapabilities,
  type Implementation,
  type JSONRPCMessage,
  type Progress,
} from '@modelcontextprotocol/sdk/types.js';

import { NO_MULTICAST } from './no-multicast.ts';
import { endProcessesIn, processesIn } from './processes.ts';
import { tempDir, type TempDir } from './temp.ts';
import { DEFAULT_WAIT_MS, within } from './wait.ts';

/** The server as it is published. */
export const SERVER_SCRIPT = fileURLToPath(new URL('../../dist/opencode-mcp.js', import.meta.url));

/** A server ends within a second of its input's end; a busy machine needs some more to show it. */
const EXIT_LIMIT_MS = 10_000;

export interface McpChildOptions {
  /** Another Node than the one that runs the tests. */
  readonly node?: string;
  /** A command that runs the server elsewhere, as its own process: `ip netns exec …`. */
  readonly prefix?: readonly [string, ...string[]];
  readonly script?: string;
  readonly args?: readonly string[];
  /** Options of Node itself, before the script. */
  readonly execArgv?: readonly string[];
  /** All that the child sees, beside PATH, a HOME and a TMPDIR of its own, and that it may use no LAN. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly clientInfo?: Implementation;
  readonly capabilities?: ClientCapabilities;
  /** Runs before the handshake: the place for request and notification handlers. */
  readonly prepare?: (client: Client) => void;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ToolCall {
  readonly result: CallToolResult;
  /** Its text items, joined by newlines. */
  readonly text: string;
  /** As the server sent it: also what a client would lose because it comes right before the result. */
  readonly progress: readonly Progress[];
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Restarts with each progress notification. */
  readonly timeoutMs?: number;
  /** False sends no progress token. */
  readonly progress?: boolean;
  readonly onProgress?: (progress: Progress) => void;
}

/** The built server as a client runs it: a real child, spoken to over its standard streams. */
export interface McpChild extends AsyncDisposable {
  readonly client: Client;
  readonly pid: number;
  readonly home: string;
  /** Complete lines of standard output so far. */
  readonly stdout: readonly string[];
  /** What was on standard output and is no JSON-RPC message. `close` rejects when there is any. */
  readonly strayOutput: readonly string[];
  readonly stderr: readonly string[];
  readonly exited: Promise<Exit>;
  call(name: string, args?: Readonly<Record<string, unknown>>, options?: CallOptions): Promise<ToolCall>;
  waitForStderr(pattern: RegExp, timeoutMs?: number): Promise<string>;
  /** Writes to the child's input as it is: for messages that no client would send. */
  write(text: string): void;
  /** What every client does at its end; then wait for `exited`. */
  closeStdin(): void;
  /** To the child alone, not to what it started. */
  kill(signal?: NodeJS.Signals): void;
  /** Processes with the child's environment that still run: once it has exited, what it has left behind. */
  survivors(): Promise<number[]>;
  close(): Promise<void>;
}

/** Starts the server and shakes hands. */
export async function startMcpChild(options: McpChildOptions = {}): Promise<McpChild> {
  const temp = tempDir('opencode-mcp-child');
  const server = new McpProcess(temp, options);
  try {
    await within(server.connect(options.prepare), () => `the handshake; stderr: ${server.stderr.join('\n')}`);
    return server;
  } catch (error) {
    await server.close();
    throw error;
  }
}

class McpProcess implements McpChild {
  readonly client: Client;
  readonly home: string;
  readonly stdout: string[] = [];
  readonly strayOutput: string[] = [];
  readonly stderr: string[] = [];
  readonly exited: Promise<Exit>;
  readonly #temp: TempDir;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #news = new EventTarget();
  readonly #drained: Promise<unknown>;
  /** One message in each turn of the event loop: the SDK's client loses a progress notification that comes in one piece with its result. */
  #delivered: Promise<void> = Promise.resolve();
  #transport: Transport | undefined;
  #closing: Promise<void> | undefined;

  constructor(temp: TempDir, options: McpChildOptions) {
    this.#temp = temp;
    this.home = temp.path;
    this.client = new Client(options.clientInfo ?? { name: 'rig', version: '1.0.0' }, {
      capabilities: options.capabilities ?? {},
    });
    const [program, ...prefix] = [...(options.prefix ?? []), options.node ?? process.execPath] as const;
    const argv = [...(options.execArgv ?? []), options.script ?? SERVER_SCRIPT, ...(options.args ?? [])];
    this.#child = spawn(program, [...prefix, ...argv], {
      cwd: options.cwd ?? temp.path,
      env: { PATH: process.env['PATH'] ?? '', HOME: temp.path, TMPDIR: temp.tmp, ...NO_MULTICAST, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stdin.on('error', () => {});
    this.exited = once(this.#child, 'exit').then(() => ({
      code: this.#child.exitCode,
      signal: this.#child.signalCode,
    }));
    this.#drained = Promise.all([
      eachLine(this.#child.stdout, (line) => this.#take(line)),
      eachLine(this.#child.stderr, (line) => {
        this.stderr.push(line);
        this.#news.dispatchEvent(new Event('stderr'));
      }),
    ]);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async connect(prepare?: (client: Client) => void): Promise<void> {
    prepare?.(this.client);
    const transport: Transport = {
      start: async () => {},
      send: async (message: JSONRPCMessage) => this.write(`${JSON.stringify(message)}\n`),
      close: async () => this.closeStdin(),
    };
    this.#transport = transport;
    void this.#drained.then(() => this.#delivered).then(() => transport.onclose?.());
    await this.client.connect(transport);
  }

  async call(name: string, args: Readonly<Record<string, unknown>> = {}, options: CallOptions = {}): Promise<ToolCall> {
    const progress: Progress[] = [];
    const onprogress = (update: Progress): void => {
      progress.push(update);
      options.onProgress?.(update);
    };
    const result = await this.client.request(
      { method: 'tools/call', params: { name, arguments: args } },
      CallToolResultSchema,
      {
        timeout: options.timeoutMs ?? 60_000,
        resetTimeoutOnProgress: true,
        ...(options.progress === false ? {} : { onprogress }),
        ...(options.signal ? { signal: options.signal } : {}),
      },
    );
    const text = result.content.map((item) => (item.type === 'text' ? item.text : '')).join('\n');
    return { result, text, progress };
  }

  async waitForStderr(pattern: RegExp, timeoutMs = DEFAULT_WAIT_MS): Promise<string> {
    let stop = (): void => {};
    const found = new Promise<string>((resolve) => {
      const look = (): void => {
        const line = this.stderr.find((text) => pattern.test(text));
        if (line !== undefined) resolve(line);
      };
      stop = () => this.#news.removeEventListener('stderr', look);
      this.#news.addEventListener('stderr', look);
      look();
    });
    return within(found, () => `${pattern} on stderr, which has ${JSON.stringify(this.stderr)}`, timeoutMs).finally(
      stop,
    );
  }

  write(text: string): void {
    this.#child.stdin.write(text);
  }

  closeStdin(): void {
    this.#child.stdin.end();
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.#child.kill(signal);
  }

  survivors(): Promise<number[]> {
    return processesIn(this.#temp.tmp);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#end());
  }

  async #end(): Promise<void> {
    this.#child.kill('SIGCONT');
    this.closeStdin();
    await within(this.exited, 'the server to end after its input', EXIT_LIMIT_MS).catch(() => {});
    // Also what it left behind: a test that forbids that asks `survivors` before.
    await endProcessesIn(this.#temp.tmp);
    await this.exited;
    await within(this.#drained, "the end of the server's output", EXIT_LIMIT_MS);
    await this.#temp.close();
    if (this.strayOutput.length > 0) {
      throw new Error(
        `standard output is for protocol messages only, got ${JSON.stringify(this.strayOutput.slice(0, 5))}`,
      );
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #take(line: string): void {
    this.stdout.push(line);
    const message = parseMessage(line);
    if (!message) {
      this.strayOutput.push(line);
      return;
    }
    this.#delivered = this.#delivered.then(() => nextTurn()).then(() => this.#transport?.onmessage?.(message));
  }
}

/** Lines end at a line feed and nowhere else: `readline` would also cut a message at U+2028. A rest without one is a line too. */
async function eachLine(stream: Readable, take: (line: string) => void): Promise<void> {
  let rest = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line);
  });
  await once(stream, 'close');
  if (rest !== '') take(rest);
}

function parseMessage(line: string): JSONRPCMessage | undefined {
  try {
    return JSONRPCMessageSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}
