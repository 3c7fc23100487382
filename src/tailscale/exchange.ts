import {
  type Agent,
  type ClientRequest,
  type IncomingMessage,
  request as requestHttp,
  type RequestOptions,
} from 'node:http';
import type { Clock } from '../base/clock.ts';
import { quoted, singleLine } from '../base/plain-text.ts';
import { type LocalApiAddress, shownAddress } from './address.ts';
import { LocalApiError, type LocalApiFailure } from './types.ts';

/** One request to the LocalAPI. */
export interface Asking {
  readonly address: LocalApiAddress;
  readonly method: 'GET' | 'POST';
  /** After `/localapi/v0/`, query included. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Keeps connections for the next request; unset, each has its own. Only for what may be asked twice. */
  readonly agent?: Agent;
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

export interface LocalApiAnswer {
  readonly status: number;
  readonly text: string;
}

/** tailscaled refuses other names, against DNS rebinding; and any Origin or Referer. */
const HOST = 'local-tailscaled.sock';

const MAX_REASON_CHARS = 200;

/** A kept connection had broken since it was used last, as each does when tailscaled restarts: nothing was answered. */
class KeptConnectionError extends Error {
  override readonly name = 'KeptConnectionError';
}

/** One bounded exchange, any status. Rejects with `LocalApiError`, or with the signal's reason. */
export async function exchangeLocal(asking: Asking): Promise<LocalApiAnswer> {
  return bounded(asking, async (started) => {
    const response = await answerOf(asking, started).catch((error: unknown) => {
      if (!(error instanceof KeptConnectionError)) throw error;
      const { agent: _, ...fresh } = asking;
      return answerOf(fresh, started);
    });
    return { status: response.statusCode ?? 0, text: await textOf(response, asking) };
  });
}

/** The response to a request whose body goes on until `signal` aborts; only its headers are bounded in time. */
export async function openLocal(asking: Asking & { readonly signal: AbortSignal }): Promise<IncomingMessage> {
  let request: ClientRequest | undefined;
  const cut = (): void => void request?.destroy();
  const response = await bounded(asking, (started) =>
    answerOf(asking, (made) => {
      request = made;
      started(made);
    }),
  );
  asking.signal.addEventListener('abort', cut, { once: true });
  response.once('close', () => asking.signal.removeEventListener('abort', cut));
  if (asking.signal.aborted) cut();
  return response;
}

/** A request that is not sent yet: the caller listens and ends it. */
export function prepareLocal({ address, method, path, headers, agent }: Asking): ClientRequest {
  const common: RequestOptions = {
    method,
    path: `/localapi/v0/${path}`,
    agent: agent ?? false,
    setHost: false,
    headers: { host: HOST, ...headers },
  };
  if (address.kind === 'socket') return requestHttp({ ...common, socketPath: address.path });
  return requestHttp({ ...common, host: '127.0.0.1', port: address.port, auth: `:${address.token}` });
}

/** Runs `work` within the time limit and the signal; what it started is destroyed when it fails. */
export async function bounded<T>(
  asking: Asking,
  work: (started: (request: ClientRequest) => void) => Promise<T>,
): Promise<T> {
  const { clock, signal, timeoutMs } = asking;
  signal?.throwIfAborted();
  let request: ClientRequest | undefined;
  let onAbort = (): void => {};
  const over = new AbortController();
  const cut = new Promise<never>((_, reject) => {
    onAbort = () => reject(reasonOf(signal));
    signal?.addEventListener('abort', onAbort, { once: true });
    void clock.sleep(timeoutMs, over.signal).then(() => {
      if (over.signal.aborted) return;
      reject(failure('failed', asking, `no complete answer within ${timeoutMs} ms`));
    });
  });
  try {
    return await Promise.race([work((started) => (request = started)), cut]);
  } catch (error) {
    request?.destroy();
    throw error;
  } finally {
    over.abort();
    signal?.removeEventListener('abort', onAbort);
  }
}

function answerOf(asking: Asking, started: (request: ClientRequest) => void): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = prepareLocal(asking);
    started(request);
    request.once('response', resolve);
    request.on('error', (error: NodeJS.ErrnoException) => {
      const wasKept = request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      reject(wasKept ? new KeptConnectionError(error.message, { cause: error }) : unreachable(error, asking));
    });
    request.end();
  });
}

function textOf(response: IncomingMessage, asking: Asking): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= asking.maxBytes) chunks.push(chunk);
      else reject(failure('failed', asking, `the answer is larger than ${asking.maxBytes} bytes`));
    });
    response.once('error', (cause) => reject(failure('failed', asking, 'the answer was cut off', cause)));
    response.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
  });
}

/** An error that begins with what was tried and where. */
export function failure(kind: LocalApiFailure, asking: Asking, what: string, cause?: unknown): LocalApiError {
  return new LocalApiError(kind, `${triedOf(asking)}: ${what}`, { cause });
}

function triedOf({ path, address }: Asking): string {
  return `Tailscale's LocalAPI at ${singleLine(shownAddress(address), MAX_REASON_CHARS)}, ${path.split('?', 1)[0]}`;
}

/** By the code of a connection that did not come about. */
const UNREACHABLE: ReadonlyMap<string, readonly [LocalApiFailure, string]> = new Map([
  [
    'ENOENT',
    [
      'missing',
      'there is no such socket; install and start tailscaled, or set TAILSCALE_SOCKET to where its socket is',
    ],
  ],
  ['ECONNREFUSED', ['missing', 'nothing listens there; start tailscaled (systemctl start tailscaled, or the app)']],
  ['EACCES', ['denied', 'this user may not open it (EACCES); open the socket for it, or run as a user who may']],
  ['EPERM', ['denied', 'this user may not open it (EPERM); open the socket for it, or run as a user who may']],
]);

/** No connection, or one that broke before the answer. */
export function unreachable(error: NodeJS.ErrnoException, asking: Asking): LocalApiError {
  const code = error.code ?? '';
  const [kind, what] = UNREACHABLE.get(code) ?? ['failed', singleLine(code || error.message, MAX_REASON_CHARS)];
  return failure(kind, asking, what, error);
}

/** An error status, with what tailscaled says of it. */
export function refused({ status, text }: LocalApiAnswer, asking: Asking): LocalApiError {
  const said = saidIn(text);
  const detail = `HTTP ${status}${said === '' ? '' : `, it says ${quoted(said, MAX_REASON_CHARS)}`}`;
  if (status !== 403) return failure('failed', asking, detail);
  return failure('denied', asking, `${detail}; run as root, or as the operator (tailscale set --operator=USER)`);
}

/** Errors are plain text, `{"error"}` or `{"Error"}`. */
function saidIn(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) {
      const { error, Error: capital } = value as { error?: unknown; Error?: unknown };
      const said = error ?? capital;
      if (typeof said === 'string') return said;
    }
  } catch {
    // Plain text.
  }
  return text.trim();
}

function reasonOf(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new Error('cancelled');
}
