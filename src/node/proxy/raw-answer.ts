import type { Duplex } from 'node:stream';

export interface RawAnswer {
  readonly status: number;
  readonly reason: string;
  /** Those from a peer were checked by Node's parser. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
}

/** Writes the head of an HTTP answer to a socket that Node's server has released for an upgrade. */
export function answerRaw(socket: Duplex, { status, reason, headers }: RawAnswer): void {
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : value).map((one) => `${name}: ${one}`),
  );
  socket.write(`HTTP/1.1 ${status} ${reason}\r\n${lines.join('\r\n')}\r\n\r\n`);
}

/** Ends a socket for good: the caller could keep a half-closed one open. */
export function hangUp(socket: Duplex, last = ''): void {
  socket.end(last, () => socket.destroy());
}

/** A refusal in plain text; the socket is closed. */
export function refuseRaw(socket: Duplex, { status, text }: { readonly status: number; readonly text: string }): void {
  const body = `${text}\n`;
  answerRaw(socket, {
    status,
    reason: 'Refused',
    headers: {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': String(Buffer.byteLength(body)),
      connection: 'close',
    },
  });
  hangUp(socket, body);
}
