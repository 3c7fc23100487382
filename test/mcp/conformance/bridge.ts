import type { ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';

import { listenHttp } from '../../rig/http-listener.ts';
import { type RawServer, type RawServerOptions, startRawServer } from '../raw-server.ts';

type Message = { readonly id?: string | number; readonly method?: string } & Readonly<Record<string, unknown>>;

const SUBSCRIPTION = 'io.modelcontextprotocol/subscriptionId';

/** One POST, and what belongs to its request. */
interface Exchange {
  readonly id: unknown;
  readonly response: ServerResponse;
  readonly progressToken: unknown;
}

export interface Bridge extends AsyncDisposable {
  readonly url: string;
  readonly server: RawServer;
}

/**
 * The conformance suite speaks HTTP only: each POST goes as a line to the server, under an id of its own, and what comes back for it
 * is streamed. Statuses are those that the suite asks of the transport: 400 for an envelope that is refused, 404 for a method.
 */
export async function startBridge(options: RawServerOptions): Promise<Bridge> {
  const server = startRawServer(options);
  const exchanges = new Map<number, Exchange>();
  let next = 0;
  let read = 0;
  const give = (message: Message): void => {
    const params = (message['params'] ?? {}) as { progressToken?: unknown; _meta?: Record<string, unknown> };
    if (message.id !== undefined) {
      const exchange = exchanges.get(Number(message.id));
      exchanges.delete(Number(message.id));
      if (exchange !== undefined) finish(exchange, { ...message, id: exchange.id } as Message);
      return;
    }
    const listener = params._meta?.[SUBSCRIPTION];
    const exchange =
      listener === undefined
        ? [...exchanges.values()].find(({ progressToken }) => progressToken === params.progressToken)
        : exchanges.get(Number(listener));
    if (exchange === undefined) return;
    const meta = listener === undefined ? params._meta : { ...params._meta, [SUBSCRIPTION]: exchange.id };
    event(exchange.response, { ...message, params: { ...params, ...(meta && { _meta: meta }) } });
  };
  const looking = setInterval(() => {
    for (; read < server.stdout.length; read += 1) give(JSON.parse(server.stdout[read] ?? '') as Message);
  }, 5);

  const listener = await listenHttp((request, response) => {
    void json(request)
      .catch(() => undefined)
      .then((body) => {
        const message = body as Message | undefined;
        if (request.method !== 'POST' || message === undefined) {
          response.writeHead(request.method === 'POST' ? 400 : 405).end();
          return;
        }
        if (message.id === undefined) {
          server.write(message);
          response.writeHead(202).end();
          return;
        }
        const id = (next += 1);
        const params = (message['params'] ?? {}) as { _meta?: { progressToken?: unknown } };
        exchanges.set(id, { id: message.id, response, progressToken: params._meta?.progressToken ?? Symbol('none') });
        response.once('close', () => {
          if (!exchanges.delete(id)) return;
          server.write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id } });
        });
        server.write({ ...message, id });
      });
  });
  return {
    url: `${listener.url}/mcp`,
    server,
    async [Symbol.asyncDispose]() {
      clearInterval(looking);
      await listener.close();
      await server[Symbol.asyncDispose]();
    },
  };
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
