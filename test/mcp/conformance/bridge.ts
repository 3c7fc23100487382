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
 * The conformance suite speaks HTTP only. Each POST becomes a line to the server under a new id, and the messages for it are streamed back.
 * The suite requires status 400 for a refused envelope and 404 for an unknown method.
 */
export async function startBridge(options: RawServerOptions) {
  const first = new ServerConnection(options);
  const sessions = new Map<string, ServerConnection>();
  const connectionFor = (message: Message, session: unknown): ServerConnection => {
    // A server on stdio has one client, so each handshake of the older protocol gets its own server.
    const connection = message.method === 'initialize' ? new ServerConnection(options) : sessions.get(String(session));
    if (connection !== undefined) sessions.set(connection.session, connection);
    return connection ?? first;
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
        const connection = connectionFor(message, request.headers['mcp-session-id']);
        if (connection !== first) response.setHeader('mcp-session-id', connection.session);
        if (message.id === undefined) {
          connection.server.write(message);
          response.writeHead(202).end();
        } else connection.request({ ...message, id: message.id }, response);
      });
  });
  return {
    url: `${listener.url}/mcp`,
    async [Symbol.asyncDispose]() {
      await listener.close();
      await Promise.all([first, ...sessions.values()].map((connection) => connection.close()));
    },
  };
}

/** One server, and the requests that it has not answered. */
class ServerConnection {
  readonly server: RawServer;
  readonly session = randomUUID();
  readonly #exchanges = new Map<number, Exchange>();
  readonly #pollTimer: NodeJS.Timeout;
  #lastId = 0;
  #read = 0;

  constructor(options: RawServerOptions) {
    this.server = startRawServer(options);
    this.#pollTimer = setInterval(() => this.#readNewLines(), 5);
  }

  /** Sends the request under a new id, since the clients that share this server may choose equal ids. */
  request(message: Message & { readonly id: string | number }, response: ServerResponse): void {
    const id = (this.#lastId += 1);
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
    clearInterval(this.#pollTimer);
    await this.server[Symbol.asyncDispose]();
  }

  #readNewLines(): void {
    const { stdout } = this.server;
    for (; this.#read < stdout.length; this.#read += 1) this.#forward(JSON.parse(stdout[this.#read] ?? '') as Message);
  }

  #forward(message: Message): void {
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
    writeEvent(exchange.response, { ...message, params: { ...params, ...(meta && { _meta: meta }) } });
  }
}

function writeEvent(response: ServerResponse, message: object): void {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(`event: message\ndata: ${JSON.stringify(message)}\n\n`);
}

function finish({ response }: Exchange, message: Message): void {
  const { code } = (message['error'] ?? {}) as { code?: number };
  if (response.headersSent) {
    writeEvent(response, message);
    response.end();
    return;
  }
  const status =
    code === undefined ? 200 : code === -32_601 ? 404 : [-32_602, -32_021, -32_022].includes(code) ? 400 : 200;
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(message));
}
