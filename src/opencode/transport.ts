import type { Endpoint } from '../discovery/source.ts';

/** HTTP Basic credential of one opencode server. */
export interface Credential {
  readonly username: string;
  readonly password: string;
}

/** Everything that a request to one opencode server needs. */
export interface Connection {
  readonly endpoint: Endpoint;
  readonly credential?: Credential;
}

/**
 * Why a request gave no usable answer.
 * - `unreachable`: no connection was made, so the server has seen nothing of it
 * - `broken`: the connection ended without an answer; the server may have acted on the request
 * - `timeout`: no complete answer in time; the server may have acted on it
 * - `cancelled`: the caller's signal aborted
 * - `locked`: 401
 * - `status`: any other error status
 * - `malformed`: a redirect, HTML, a body too large or one that does not parse: not an opencode, or not one we know
 */
export type FailureKind = 'unreachable' | 'broken' | 'timeout' | 'cancelled' | 'locked' | 'status' | 'malformed';

export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly kind: FailureKind;
  readonly status: number | undefined;

  constructor(kind: FailureKind, message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.kind = kind;
    this.status = options.status;
  }
}

export interface RequestLimits {
  /** For the whole exchange, body included. */
  readonly timeoutMs: number;
  /** Longest body that is read. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Exchange {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** Enough for a page of messages with tool output; more is a fault or an attack. */
export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/**
 * One bounded HTTP exchange: time, size and redirects are limited and the body is JSON or empty.
 * Error statuses are returned, not thrown, except 401.
 */
export async function exchange(
  connection: Connection,
  path: string,
  init: { readonly method?: string; readonly body?: string },
  limits: RequestLimits,
): Promise<Exchange> {
  const method = init.method ?? 'GET';
  const label = `${method} ${connection.endpoint.url}${path.split('?', 1)[0]}`;
  const deadline = startDeadline(limits);
  try {
    const response = await fetch(connection.endpoint.url + path, {
      method,
      headers: requestHeaders(connection, init.body !== undefined),
      redirect: 'manual',
      signal: deadline.signal,
      ...(init.body === undefined ? {} : { body: init.body }),
    });
    checkResponse(response, label, 'application/json');
    const text = await readBounded(response, limits.maxBytes, label);
    return { status: response.status, headers: response.headers, text };
  } catch (error) {
    throw deadline.explain(error, label);
  } finally {
    deadline.end();
  }
}

/** The parsed body of a successful JSON exchange. */
export async function requestJson(connection: Connection, path: string, limits: RequestLimits): Promise<unknown> {
  const { status, text } = await exchange(connection, path, {}, limits);
  const label = `GET ${connection.endpoint.url}${path.split('?', 1)[0]}`;
  if (status !== 200) throw new RequestError('status', `${label}: HTTP ${status}`, { status });
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new RequestError('malformed', `${label}: the body is not JSON`, { cause });
  }
}

/** Opens a response whose body is read by the caller, who must abort `signal` in the end: leaving the body unread leaks its socket. */
export async function openStream(
  connection: Connection,
  path: string,
  limits: { readonly headersTimeoutMs: number; readonly signal: AbortSignal },
): Promise<Response> {
  const label = `GET ${connection.endpoint.url}${path.split('?', 1)[0]}`;
  const deadline = startDeadline({ timeoutMs: limits.headersTimeoutMs, maxBytes: 0, signal: limits.signal });
  try {
    const response = await fetch(connection.endpoint.url + path, {
      headers: { ...requestHeaders(connection, false), accept: 'text/event-stream' },
      redirect: 'manual',
      signal: deadline.signal,
    });
    checkResponse(response, label, 'text/event-stream');
    if (response.status !== 200) {
      void response.body?.cancel().catch(() => {});
      throw new RequestError('status', `${label}: HTTP ${response.status}`, { status: response.status });
    }
    return response;
  } catch (error) {
    deadline.abort();
    throw deadline.explain(error, label);
  } finally {
    deadline.headersArrived();
  }
}

function requestHeaders(connection: Connection, hasBody: boolean): Record<string, string> {
  const { endpoint, credential } = connection;
  const headers: Record<string, string> = { ...endpoint.headers };
  if (credential !== undefined) {
    const pair = `${credential.username}:${credential.password}`;
    headers['authorization'] = `Basic ${Buffer.from(pair, 'utf8').toString('base64')}`;
  }
  if (hasBody) headers['content-type'] = 'application/json';
  return headers;
}

function checkResponse(response: Response, label: string, contentType: string): void {
  const reject = (error: RequestError): never => {
    void response.body?.cancel().catch(() => {});
    throw error;
  };
  if (response.status >= 300 && response.status < 400) {
    reject(
      new RequestError(
        'malformed',
        `${label}: answered with a redirect (HTTP ${response.status}), which is not followed`,
      ),
    );
  }
  if (response.status === 401) {
    reject(
      new RequestError('locked', `${label}: HTTP 401, a password is needed or the one sent is wrong`, { status: 401 }),
    );
  }
  // opencode answers unknown paths with its web page and status 200.
  const type = response.headers.get('content-type') ?? '';
  if (response.status === 200 && !type.toLowerCase().startsWith(contentType)) {
    reject(
      new RequestError(
        'malformed',
        `${label}: answered ${type.split(';', 1)[0] || 'no content type'} instead of ${contentType}; not an opencode server, or not this route`,
      ),
    );
  }
}

async function readBounded(response: Response, maxBytes: number, label: string): Promise<string> {
  const tooLarge = (): RequestError =>
    new RequestError('malformed', `${label}: the body is larger than ${maxBytes} bytes`);
  if (response.body === null) return '';
  if (Number(response.headers.get('content-length') ?? 0) > maxBytes) {
    void response.body.cancel().catch(() => {});
    throw tooLarge();
  }
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) throw tooLarge();
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

interface Deadline {
  readonly signal: AbortSignal;
  /** Stops the timer and lets go of the caller's signal. */
  end(): void;
  /** Stops the timer only: the caller's signal still cuts the body. */
  headersArrived(): void;
  abort(): void;
  explain(error: unknown, label: string): RequestError;
}

/** One controller per request, not `AbortSignal.any`, whose registrations on a long-lived signal Node 20 keeps. */
function startDeadline(limits: RequestLimits): Deadline {
  const controller = new AbortController();
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    controller.abort();
  }, limits.timeoutMs);
  const forward = (): void => {
    controller.abort();
  };
  if (limits.signal?.aborted) controller.abort();
  limits.signal?.addEventListener('abort', forward, { once: true });
  const clear = (): void => {
    clearTimeout(timer);
  };
  return {
    signal: controller.signal,
    end: () => {
      clear();
      limits.signal?.removeEventListener('abort', forward);
    },
    headersArrived: clear,
    abort: forward,
    explain: (error, label) => {
      if (error instanceof RequestError) return error;
      if (timedOut)
        return new RequestError('timeout', `${label}: no complete answer within ${limits.timeoutMs} ms`, {
          cause: error,
        });
      if (limits.signal?.aborted) return new RequestError('cancelled', `${label}: cancelled`, { cause: error });
      return networkError(error, label);
    },
  };
}

/** The other end has no certificate that this machine trusts: Node's codes for it. */
const CERTIFICATE_CODES = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

/** Codes with which no connection came about, so that not one byte of the request was sent. */
const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EADDRNOTAVAIL',
  'UND_ERR_CONNECT_TIMEOUT',
  ...CERTIFICATE_CODES,
]);

function networkError(error: unknown, label: string): RequestError {
  // fetch says "fetch failed" and keeps the reason in `cause`; several addresses make it an AggregateError.
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const first = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause;
  const code = codeOf(first) ?? codeOf(cause);
  const bare = code ?? (first instanceof Error ? first.message : String(first));
  const reason =
    code !== undefined && CERTIFICATE_CODES.has(code)
      ? `${code}, this machine does not trust its certificate; NODE_EXTRA_CA_CERTS can name a file of further authorities`
      : bare;
  const kind = code !== undefined && NEVER_CONNECTED.has(code) ? 'unreachable' : 'broken';
  return new RequestError(kind, `${label}: ${reason}`, { cause: error });
}

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === 'string' ? code : undefined;
}
