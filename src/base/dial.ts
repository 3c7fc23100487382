import type { ClientRequestArgs } from 'node:http';
import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import { messageOf } from './errors.ts';

/** Makes a connection other than by a plain TCP connect. `host` is an address. */
export type Dial = (host: string, port: number) => Promise<Duplex>;

/** The dial failed, so no part of the request was sent. Has the message of its cause. */
export class NotDialledError extends Error {
  override readonly name = 'NotDialledError';
}

type Done = (error: Error | null, stream: Duplex) => void;

/** A `createConnection` for node:http that dials. Fails with `NotDialledError`. */
export function dialConnector(dial: Dial): (options: ClientRequestArgs, done: Done) => undefined {
  return ({ host, port }, done) => {
    void connectBy(dial, host ?? '', Number(port), done);
    return undefined;
  };
}

async function connectBy(dial: Dial, host: string, port: number, done: Done): Promise<void> {
  const stream = await dial(host, port).catch((cause: unknown) => new NotDialledError(messageOf(cause), { cause }));
  // node:http expects no stream with an error, despite its types.
  if (stream instanceof Error) done(stream, undefined as unknown as Duplex);
  else done(null, stream);
}

/** A plain TCP connection. `signal` cancels the attempt; the promise then stays pending. */
export function openSocket(options: TcpNetConnectOpts, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(options);
    const cut = (): void => void socket.destroy();
    signal.addEventListener('abort', cut, { once: true });
    const fail = (error: Error): void => {
      signal.removeEventListener('abort', cut);
      reject(error);
    };
    socket.once('error', fail).once('connect', () => {
      signal.removeEventListener('abort', cut);
      socket.removeListener('error', fail);
      resolve(socket);
    });
  });
}
