import type { ClientRequestArgs } from 'node:http';
import type { Duplex } from 'node:stream';

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
    void connect(dial, host ?? '', Number(port), done);
    return undefined;
  };
}

async function connect(dial: Dial, host: string, port: number, done: Done): Promise<void> {
  let stream: Duplex;
  try {
    stream = await dial(host, port);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    // node:http takes no stream beside an error, whatever its types say.
    done(new NotDialledError(message, { cause }), undefined as unknown as Duplex);
    return;
  }
  done(null, stream);
}
