import { createServer, type RequestListener, type Server } from 'node:http';
import type { Socket } from 'node:net';

/** A plain HTTP server on 127.0.0.1. */
export interface HttpListener extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly server: Server;
  /** Destroys every connection and stops listening. */
  close(): Promise<void>;
}

/** Listens on `port`, or on a free one. */
export async function listenHttp(handler: RequestListener, port = 0): Promise<HttpListener> {
  // Without Node's limits: tests need hanging requests and half-sent bodies.
  const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 }, handler);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string')
    throw new Error(`Expected an address with a port, got ${address}`);
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closing ??= new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    }));
  return { url: `http://127.0.0.1:${address.port}`, port: address.port, server, close, [Symbol.asyncDispose]: close };
}
