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

import { Arrivals } from '../arrivals.ts';
import type { Exit } from '../logged-child.ts';
import { NO_MULTICAST } from '../no-multicast.ts';
import { endProcessesIn } from '../processes.ts';
import { tempDir, type TempDir } from '../temp.ts';
import { within } from '../wait.ts';

/** The server as it is published. */
export const SERVER_SCRIPT = fileURLToPath(new URL('../../../dist/opencode-mcp.js', import.meta.url));

/** A server ends within a second after its input ends, but later on a busy machine. */
const EXIT_LIMIT_MS = 10_000;

export interface McpChildOptions {
  /** The Node that runs the server, if it is not the one of the tests. */
  readonly node?: string;
  /** A command that runs the server elsewhere, as its own process: `ip netns exec …`. */
  readonly prefix?: readonly [string, ...string[]];
  readonly script?: string;
  readonly args?: readonly string[];
  /** The child's environment beside PATH, its own HOME and TMPDIR, and the setting that keeps it from the LAN. */
  readonly env?: Readonly<Record<string, string>>;
  readonly clientInfo?: Implementation;
  readonly capabilities?: ClientCapabilities;
  /** Runs before the handshake, to set request and notification handlers. */
  readonly prepare?: (client: Client) => void;
}

export interface ToolCall {
  readonly result: CallToolResult;
  /** The text items of the result, joined by newlines. */
  readonly text: string;
  /** All that the server sent, including what a client would lose because it arrives right before the result. */
  readonly progress: readonly Progress[];
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Each progress notification restarts this timeout. */
  readonly timeoutMs?: number;
  /** False sends no progress token. */
  readonly progress?: boolean;
  readonly onProgress?: (progress: Progress) => void;
}

/** Starts the server and performs the handshake. */
export async function startMcpChild(options: McpChildOptions = {}): Promise<McpChild> {
  const temp = tempDir('opencode-mcp-child');
  const server = new McpChild(temp, options);
  try {
    await within(server.connect(options.prepare), () => `the handshake; stderr: ${server.stderr.join('\n')}`);
    return server;
  } catch (error) {
    await server.close();
    throw error;
  }
}

/** The built server as a client runs it: a child process with the protocol on its standard streams. */
export class McpChild implements AsyncDisposable {
  readonly client: Client;
  readonly home: string;
  /** Complete lines of standard output so far. */
  readonly stdout: string[] = [];
  /** Lines of standard output that are not JSON-RPC messages. `close` rejects if there are any. */
  readonly strayOutput: string[] = [];
  readonly exited: Promise<Exit>;
  readonly #temp: TempDir;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #stderr = new Arrivals<string>();
  readonly #drained: Promise<unknown>;
  /** One message per turn of the event loop: the SDK's client loses a progress notification that arrives together with its result. */
  #delivered: Promise<void> = Promise.resolve();
  #transport: Transport | undefined;
  #closing: Promise<void> | undefined;

  constructor(temp: TempDir, options: McpChildOptions) {
    this.#temp = temp;
    this.home = temp.path;
    const { clientInfo = { name: 'rig', version: '1.0.0' }, capabilities = {}, node = process.execPath } = options;
    this.client = new Client(clientInfo, { capabilities });
    const [program, ...words] = [...(options.prefix ?? []), node, options.script ?? SERVER_SCRIPT] as const;
    this.#child = spawn(program, [...words, ...(options.args ?? [])], {
      cwd: temp.path,
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
      eachLine(this.#child.stderr, (line) => this.#stderr.add(line)),
    ]);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get stderr(): readonly string[] {
    return this.#stderr.items;
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

  waitForStderr(pattern: RegExp, timeoutMs?: number): Promise<string> {
    const what = (): string => `${pattern} on stderr, which has ${JSON.stringify(this.stderr)}`;
    return this.#stderr.first(what, (line) => pattern.test(line), { timeoutMs });
  }

  /** Writes to the child's input unchanged, for messages that no client would send. */
  write(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Ends the server as every client does; then wait for `exited`. */
  closeStdin(): void {
    this.#child.stdin.end();
  }

  /** Signals the child only, not the processes that it started. */
  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.#child.kill(signal);
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#end());
  }

  async #end(): Promise<void> {
    this.#child.kill('SIGCONT');
    this.closeStdin();
    await within(this.exited, 'the server to end after its input', EXIT_LIMIT_MS).catch(() => {});
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

/** Lines end at a line feed only: `readline` would also split a message at U+2028. An unfinished last line counts too. */
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
