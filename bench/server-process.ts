import { within } from '../test/rig/wait.ts';
import { ChildProgram, type SpawnOptions } from './line-process.ts';

export interface ToolResult<Data> {
  readonly data: Data;
  readonly text: string;
  /** Of the whole message. */
  readonly bytes: number;
  /** From request to answer. */
  readonly ms: number;
}

interface Answer {
  readonly result: unknown;
  readonly bytes: number;
  readonly atMs: number;
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly message?: string };
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

interface CallResult {
  readonly isError?: boolean;
  readonly content: ReadonlyArray<{ readonly text: string }>;
  readonly structuredContent: unknown;
}

const PROTOCOL = '2025-11-25';

/** Parameters of a request of 2026-07-28. */
export const ENVELOPED = {
  _meta: {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
    'io.modelcontextprotocol/clientCapabilities': {},
  },
} as const;

/** One discovery round a day is none: the server does only what is measured. */
export const NO_ROUNDS = { DISCOVERY_INTERVAL_MS: '86400000' } as const;

/** An MCP server. Its messages are parsed but not validated, which would be a client's work. */
export class ServerProcess extends ChildProgram {
  /** Just before the process was spawned, by `performance.now()`. */
  readonly spawnedAtMs: number;
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  #onProgress: (text: string, atNs: bigint) => void = () => {};
  #requests = 0;

  constructor(options: SpawnOptions) {
    const spawnedAtMs = performance.now();
    super(options);
    this.spawnedAtMs = spawnedAtMs;
    void this.exited.then(() => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the server has ended without an answer'));
    });
    let rest = '';
    this.child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#take(line);
    });
  }

  /** Performs the handshake. */
  async initialize(): Promise<void> {
    const clientInfo = { name: 'bench', version: '1.0.0' };
    await this.#request('initialize', { protocolVersion: PROTOCOL, capabilities: {}, clientInfo });
    this.#send({ jsonrpc: '2.0', method: 'notifications/initialized' });
  }

  /** As a client of 2026-07-28 starts: every request carries all parameters. */
  async discover(): Promise<void> {
    await this.#request('server/discover', ENVELOPED);
  }

  async listTools(
    params: object = {},
  ): Promise<{ readonly bytes: number; readonly count: number; readonly atMs: number }> {
    const { result, atMs } = await this.#request('tools/list', params);
    const { tools } = result as { readonly tools: readonly unknown[] };
    return { bytes: Buffer.byteLength(JSON.stringify(result)), count: tools.length, atMs };
  }

  /** The caller knows the tool's output schema. Rejects if the tool fails. */
  async call<Data>(
    name: string,
    args: object = {},
    onProgress?: (text: string, atNs: bigint) => void,
  ): Promise<ToolResult<Data>> {
    this.#onProgress = onProgress ?? (() => {});
    const meta = onProgress === undefined ? {} : { _meta: { progressToken: 1 } };
    const startMs = performance.now();
    const { result, bytes, atMs } = await this.#request('tools/call', { name, arguments: args, ...meta });
    const { isError, content, structuredContent } = result as CallResult;
    const text = content.map((item) => item.text).join('\n');
    if (isError === true) throw new Error(`${name}: ${text}`);
    return { data: structuredContent as Data, text, bytes, ms: atMs - startMs };
  }

  async #request(method: string, params: object): Promise<Answer> {
    const id = (this.#requests += 1);
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    this.#send({ jsonrpc: '2.0', id, method, params });
    return await within(answer, `the answer to ${method}`);
  }

  #send(message: object): void {
    this.child.stdin.write(`${JSON.stringify(message)}\n`);
  }

  #take(line: string): void {
    const atMs = performance.now();
    const message = JSON.parse(line) as Message;
    if (message.method === 'notifications/progress') {
      this.#onProgress(message.params?.message ?? '', process.hrtime.bigint());
      return;
    }
    if (message.id === undefined) return;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error !== undefined) waiting?.reject(new Error(message.error.message));
    else waiting?.resolve({ result: message.result, bytes: Buffer.byteLength(line), atMs });
  }
}
