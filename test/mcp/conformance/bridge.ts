import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';

import { listenHttp } from '../../rig/http-listener.ts';
import { type RawServer, type RawServerOptions, startRawServer } from '../raw-server.ts';

type Message = { readonly id?: string | number; readonly method?: string } & Readonly<Record<string, unknown>>;

const SUBSCRIPTION = 'io.modelcontextprotocol/subscriptionId';

/** One POST, with the id and the progress token of its request. */
interface Exchange {
  readonly id: unknown;
  readonly response: ServerResponse;
  readonly progressToken: unknown;
}

/**
 * The conformance suite speaks HTTP only. Each POST becomes a line to the server under a new id, and its messages are streamed back.
 * The suite requires status 400 for a refused envelope and 404 for an unknown method.
 */
export async function startBridge(options: RawServerOptions) {
  const first = new Line(options);
  const sessions = new Map<string, Line>();
  const lineOf = (message: Message, session: unknown): Line => {
    // A server on stdio has one client, so each handshake of the older protocol gets its own server.
    const line = message.method === 'initialize' ? new Line(options) : sessions.get(String(session));
    if (line !== undefined) sessions.set(line.session, line);
    return line ?? first;
  };
  const listener = await listenHttp((request, response) => {
    void json(request)
      .catch(() => undefined)
      .then((body) => {
        const message = body as Message | undefined;
        if (request.method !== 'POST' || message === undefined) {
          response.writeHead(request.method === 'POST' ? 400 : 405).end();
          return;
        }
        const line = lineOf(message, request.headers['mcp-session-id']);
        if (line !== first) response.setHeader('mcp-session-id', line.session);
        if (message.id === undefined) {
          line.server.write(message);
          response.writeHead(202).end();
        } else line.ask({ ...message, id: message.id }, response);
      });
  });
  return {
    url: `${listener.url}/mcp`,
    async [Symbol.asyncDispose]() {
      await listener.close();
      await Promise.all([first, ...sessions.values()].map((line) => line.close()));
    },
  };
}

/** One server, and the requests that it has not answered. */
class Line {
  readonly server: RawServer;
  readonly session = randomUUID();
  readonly #exchanges = new Map<number, Exchange>();
  readonly #looking: NodeJS.Timeout;
  #next = 0;
  #read = 0;

  constructor(options: RawServerOptions) {
    this.server = startRawServer(options);
    this.#looking = setInterval(() => this.#look(), 5);
  }

  /** Uses a new id. */
  ask(message: Message & { readonly id: string | number }, response: ServerResponse): void {
    const id = (this.#next += 1);
    const params = (message['params'] ?? {}) as { _meta?: { progressToken?: unknown } };
    this.#exchanges.set(id, {
      id: message.id,
      response,
      progressToken: params._meta?.progressToken ?? Symbol('none'),
    });
    response.once('close', () => {
      if (!this.#exchanges.delete(id)) return;
      this.server.write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } });
    });
    this.server.write({ ...message, id });
  }

  async close(): Promise<void> {
    clearInterval(this.#looking);
    await this.server[Symbol.asyncDispose]();
  }

  #look(): void {
    const { stdout } = this.server;
    for (; this.#read < stdout.length; this.#read += 1) this.#give(JSON.parse(stdout[this.#read] ?? '') as Message);
  }

  #give(message: Message): void {
    const params = (message['params'] ?? {}) as { progressToken?: unknown; _meta?: Record<string, unknown> };
    if (message.id !== undefined) {
      const exchange = this.#exchanges.get(Number(message.id));
      this.#exchanges.delete(Number(message.id));
      if (exchange !== undefined) finish(exchange, { ...message, id: exchange.id } as Message);
      return;
    }
    const listener = params._meta?.[SUBSCRIPTION];
    const exchange =
      listener === undefined
        ? [...this.#exchanges.values()].find(({ progressToken }) => progressToken === params.progressToken)
        : this.#exchanges.get(Number(listener));
    if (exchange === undefined) return;
    const meta = listener === undefined ? params._meta : { ...params._meta, [SUBSCRIPTION]: exchange.id };
    event(exchange.response, { ...message, params: { ...params, ...(meta && { _meta: meta }) } });
  }
}

function event(response: ServerResponse, message: object): void {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(`event: message\ndata: ${JSON.stringify(message)}\n\n`);
}

function finish({ response }: Exchange, message: Message): void {
  const { code } = (message['error'] ?? {}) as { code?: number };
  if (response.headersSent) {
    event(response, message);
    response.end();
    return;
  }
  const status =
    code === undefined ? 200 : code === -32_601 ? 404 : [-32_602, -32_021, -32_022].includes(code) ? 400 : 200;
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(message));
}
