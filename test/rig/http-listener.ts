import {
  createServer,
  type IncomingMessage,
  request as requestHttp,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';

/** A plain HTTP server on 127.0.0.1, or on a Unix socket, which has no URL. */
export interface HttpListener extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly server: Server;
  /** Destroys every connection and stops listening. */
  close(): Promise<void>;
}

/** Listens on a port, by default a free one, or on the path of a socket. */
export async function listenHttp(handler: RequestListener, at: number | string = 0): Promise<HttpListener> {
  // Without Node's limits: tests need hanging requests and half-outgoing bodies.
  const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 }, handler);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (typeof at === 'string') server.listen(at, resolve);
    else server.listen(at, '127.0.0.1', resolve);
  });
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closing ??= new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    }));
  return { url: `http://127.0.0.1:${port}`, port, server, close, [Symbol.asyncDispose]: close };
}

/** Passes a request on to `url`, and the answer back. */
export function forward(incoming: IncomingMessage, response: ServerResponse, url: string): void {
  const { method = '', headers } = incoming;
  const outgoing = requestHttp(url, { method, headers: { ...headers, host: '127.0.0.1' }, agent: false });
  outgoing.on('response', (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    response.flushHeaders();
    answer.pipe(response);
  });
  outgoing.on('error', () => response.destroy());
  response.once('close', () => outgoing.destroy());
  incoming.pipe(outgoing);
}
