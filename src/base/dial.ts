import type { ClientRequestArgs } from 'node:http';
import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import { messageOf } from './errors.ts';

/** Makes a connection where one cannot simply connect. `host` is an address. Rejects when none came about. */
export type Dial = (host: string, port: number) => Promise<Duplex>;

/** No connection was made: nothing of a request was sent. Has the message of its cause. */
export class NotDialledError extends Error {
  override readonly name = 'NotDialledError';
}

type Done = (error: Error | null, stream: Duplex) => void;

/** The `createConnection` of node:http for a connection that is dialled. Fails with `NotDialledError`. */
export function dialConnector(dial: Dial): (options: ClientRequestArgs, done: Done) => undefined {
  return ({ host, port }, done) => {
    void connectBy(dial, host ?? '', Number(port), done);
    return undefined;
  };
}

async function connectBy(dial: Dial, host: string, port: number, done: Done): Promise<void> {
  const stream = await dial(host, port).catch((cause: unknown) => new NotDialledError(messageOf(cause), { cause }));
  // node:http takes no stream beside an error, whatever its types say.
  if (stream instanceof Error) done(stream, undefined as unknown as Duplex);
  else done(null, stream);
}

/** A plain TCP connection; `signal` ends the attempt. */
export function openSocket(options: TcpNetConnectOpts, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(options);
    const cut = (): void => void socket.destroy();
    signal.addEventListener('abort', cut, { once: true });
    socket.once('error', reject).once('connect', () => {
      signal.removeEventListener('abort', cut);
      socket.removeListener('error', reject);
      resolve(socket);
    });
  });
}
