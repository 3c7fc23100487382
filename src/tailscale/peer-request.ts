import { type IncomingHttpHeaders, request as requestHttp } from 'node:http';
import type { Clock } from '../base/clock.ts';
import { type Dial, dialConnector } from '../base/dial.ts';
import { LinkedAbort } from '../base/linked-abort.ts';

export interface PeerRequest {
  /** An address, never a name: what answers there is the node that owns it. */
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly dial: Dial | undefined;
  /** Beside `accept`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** For the whole exchange. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface PeerAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** No answer: `refused` where the machine is there and nothing listens, `silent` where nothing came back in time. */
export class PeerUnreachableError extends Error {
  override readonly name = 'PeerUnreachableError';
  readonly kind: 'refused' | 'silent';

  constructor(kind: 'refused' | 'silent', message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** One bounded GET; redirects are answers. Rejects with `PeerUnreachableError`, or another Error where the answer is broken or too large. */
export async function askPeer(asked: PeerRequest): Promise<PeerAnswer> {
  const { clock, signal, timeoutMs } = asked;
  signal.throwIfAborted();
  const over = new AbortController();
  const cut = new LinkedAbort(signal);
  void clock.sleep(timeoutMs, over.signal).then(() => {
    if (!over.signal.aborted) cut.abort(new PeerUnreachableError('silent', `no answer within ${timeoutMs} ms`));
  });
  try {
    return await exchange(asked, cut.signal);
  } finally {
    over.abort();
    cut.end();
  }
}

function exchange({ host, port, path, dial, headers, maxBytes }: PeerRequest, cut: AbortSignal): Promise<PeerAnswer> {
  return new Promise((resolve, reject) => {
    const request = requestHttp({
      host,
      port,
      path,
      headers: { accept: 'application/json', ...headers },
      ...(dial === undefined ? { agent: false } : { createConnection: dialConnector(dial) }),
    });
    const fail = (error: Error): void => {
      reject(error);
      request.destroy();
    };
    const onCut = (): void => fail(cut.reason instanceof Error ? cut.reason : new Error('cancelled'));
    cut.addEventListener('abort', onCut, { once: true });
    request.once('close', () => cut.removeEventListener('abort', onCut));
    request.on('error', (error: NodeJS.ErrnoException) => fail(unreachable(error)));
    request.once('response', (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= maxBytes) chunks.push(chunk);
        else fail(new Error(`the answer is larger than ${maxBytes} bytes`));
      });
      response.once('error', () => fail(new Error('the answer was cut off')));
      response.once('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
      });
    });
    request.end();
  });
}

function unreachable(error: NodeJS.ErrnoException): PeerUnreachableError {
  const kind = error.code === 'ECONNREFUSED' || /connection (was )?refused/i.test(error.message) ? 'refused' : 'silent';
  return new PeerUnreachableError(kind, error.code ?? error.message, { cause: error });
}
