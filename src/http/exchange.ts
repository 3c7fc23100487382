import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Clock } from '../base/clock.ts';
import type { Endpoint } from '../model/candidate.ts';
import { quoted, quoteName } from '../base/plain-text.ts';
import { within } from '../base/within.ts';
import { HttpCall, type Outgoing } from './call.ts';
import { RequestError } from './request-error.ts';

export { RequestError } from './request-error.ts';

/** HTTP Basic credential of one opencode server. */
export interface Credential {
  readonly username: string;
  readonly password: string;
  /** Where it was found, safe to show. */
  readonly from?: string;
}

/** The header `Authorization` (RFC 7617). */
export function basicAuthorization({ username, password }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}

/** Everything that a request to one opencode server needs. */
export interface Connection {
  readonly endpoint: Endpoint;
  readonly credential?: Credential;
  /** Asked once a request that changes something has a connection, right before its first byte is sent; it is not sent where this throws. */
  readonly beforeChange?: () => void;
}

export interface RequestLimits {
  /** For the whole exchange, body included. */
  readonly timeoutMs: number;
  /** Longest body that is read. */
  readonly maxBytes: number;
  /** Longer strings in it are cut (`CUT_MARK`), and count as what is left of them. */
  readonly maxStringBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RequestInit {
  /** GET where it is left out. */
  readonly method?: string;
  /** JSON. */
  readonly body?: string;
  /** The answer may be of any content type. */
  readonly anyType?: boolean;
}

export interface Exchange {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** Enough for a page of messages with tool output; more is a fault or an attack. */
export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/**
 * One bounded HTTP exchange: time, size and redirects are limited and the body is JSON or empty.
 * Error statuses are returned, not thrown, except 401. Rejects with `RequestError`, or with what `beforeChange` throws.
 */
export async function exchange(
  connection: Connection,
  path: string,
  init: RequestInit,
  limits: RequestLimits,
): Promise<Exchange> {
  const { method = 'GET', body, anyType = false } = init;
  const label = labelOf(method, connection, path);
  const headers = requestHeaders(connection, body);
  const call = new HttpCall(
    {
      method,
      url: connection.endpoint.url + path,
      headers,
      body,
      pooled: true,
      label,
      ...meansOf(connection),
      beforeSend: method === 'GET' ? undefined : connection.beforeChange,
    },
    limits.signal,
  );
  try {
    call.limit(limits.timeoutMs);
    const response = await call.headers();
    await checkPassedOn(response, call, label);
    await checkAdmitted(response, call, label);
    checkResponse(response, label, anyType ? '' : 'application/json');
    const text = await call.text(response, limits.maxBytes, limits.maxStringBytes);
    return { status: response.statusCode ?? 0, headers: response.headers, text };
  } finally {
    call.end();
  }
}

/** One exchange with any answer, which the caller judges. Rejects with `RequestError`, or the reason of `signal`. */
export async function exchangeAny(
  outgoing: Outgoing,
  { clock, timeoutMs: ms, maxBytes, signal }: RequestLimits & { readonly clock: Clock },
): Promise<Exchange> {
  const late = (): Error => new RequestError('timeout', `${outgoing.label}: no complete answer within ${ms} ms`);
  return within({ clock, ms, late, signal }, async (cut) => {
    const call = new HttpCall(outgoing, cut);
    try {
      const response = await call.headers();
      const text = await call.text(response, maxBytes);
      return { status: response.statusCode ?? 0, headers: response.headers, text };
    } finally {
      call.end();
    }
  });
}

/** The parsed body of a successful JSON exchange. */
export async function requestJson(connection: Connection, path: string, limits: RequestLimits): Promise<unknown> {
  return (await requestDated(connection, path, limits)).body;
}

/** As `requestJson`, with the time by the server's clock, ms since the epoch; undefined where the server did not send it. */
export async function requestDated(
  connection: Connection,
  path: string,
  limits: RequestLimits,
): Promise<{ readonly body: unknown; readonly dateMs: number | undefined }> {
  const { status, headers, text } = await exchange(connection, path, {}, limits);
  const label = labelOf('GET', connection, path);
  if (status !== 200) throw new RequestError('status', `${label}: HTTP ${status}`, { status, answer: text });
  const dateMs = Date.parse(headers.date ?? '');
  try {
    return { body: JSON.parse(text) as unknown, dateMs: Number.isNaN(dateMs) ? undefined : dateMs };
  } catch (cause) {
    throw new RequestError('malformed', `${label}: the body is not JSON`, { cause });
  }
}

/**
 * Opens a response whose body is read by the caller, on a socket of its own. `signal` cuts it at any time, and must abort
 * in the end.
 */
export async function openStream(
  connection: Connection,
  path: string,
  limits: { readonly headersTimeoutMs: number; readonly signal: AbortSignal },
): Promise<IncomingMessage> {
  const label = labelOf('GET', connection, path);
  const headers = { ...requestHeaders(connection, undefined), accept: 'text/event-stream' };
  const call = new HttpCall(
    {
      method: 'GET',
      url: connection.endpoint.url + path,
      headers,
      pooled: false,
      label,
      ...meansOf(connection),
    },
    limits.signal,
  );
  try {
    call.limit(limits.headersTimeoutMs);
    const response = await call.headers();
    await checkPassedOn(response, call, label);
    await checkAdmitted(response, call, label);
    checkResponse(response, label, 'text/event-stream');
    const { statusCode: status = 0 } = response;
    if (status !== 200) throw new RequestError('status', `${label}: HTTP ${status}`, { status });
    call.limit(undefined);
    return response;
  } catch (error) {
    call.end();
    throw error;
  }
}

/** What is said of a request: never its query, which may hold a directory or a title. */
function labelOf(method: string, { endpoint }: Connection, path: string): string {
  return `${method} ${endpoint.url}${path.split('?', 1)[0]}`;
}

function meansOf({ endpoint, credential }: Connection): Pick<Outgoing, 'dial' | 'secretFor'> {
  const { dial, headers, holderPid } = endpoint;
  // A service without a password is identified only by the process that holds its port.
  const isGuarded = credential !== undefined || headers !== undefined || holderPid !== undefined;
  return { dial, secretFor: isGuarded ? endpoint : undefined };
}

function requestHeaders({ endpoint, credential }: Connection, body: string | undefined): Record<string, string> {
  const given = Object.entries(endpoint.headers ?? {});
  const headers = Object.fromEntries(given.filter((pair): pair is [string, string] => typeof pair[1] === 'string'));
  if (credential !== undefined) {
    headers['authorization'] = basicAuthorization(credential);
  }
  if (body !== undefined) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(Buffer.byteLength(body));
  }
  return headers;
}

/** Errors of RFC 9209 with which the server behind a proxy has seen nothing of the request. */
const NOT_PASSED_ON =
  /;\s*error\s*=\s*"?(?:http_request_denied|destination_not_found|destination_unavailable|connection_refused)\b/i;
const MAX_REFUSAL_BYTES = 16 * 1024;
const MAX_REFUSAL_CHARS = 400;
const MAX_PLACE_CHARS = 200;

/** What a node service refuses is no answer of the instance: a session that it does not have, for one, may be there. */
async function checkPassedOn(response: IncomingMessage, call: HttpCall, label: string): Promise<void> {
  const { statusCode: status = 0, headers } = response;
  if (!NOT_PASSED_ON.test(String(headers['proxy-status'] ?? ''))) return;
  const text = await call.text(response, MAX_REFUSAL_BYTES);
  throw new RequestError(
    'unreachable',
    `${label}: not passed on to the instance, HTTP ${status}; it says ${quoted(text, MAX_REFUSAL_CHARS)}`,
    { status },
  );
}

async function checkAdmitted(response: IncomingMessage, call: HttpCall, label: string): Promise<void> {
  const { statusCode: status, headers } = response;
  if (status !== 401) return;
  const { withheld } = call;
  const answer = await call.text(response, MAX_REFUSAL_BYTES).catch(() => '');
  const why = withheld ?? 'a password is needed or the one sent is wrong';
  throw new RequestError('locked', `${label}: HTTP 401${withheld === undefined ? ', ' : '; '}${why}`, {
    status,
    answer,
    ...(headers['www-authenticate'] !== undefined && { challenge: headers['www-authenticate'] }),
    ...(withheld !== undefined && { withheld }),
  });
}

function checkResponse({ statusCode: status = 0, headers }: IncomingMessage, label: string, contentType: string): void {
  if (status >= 300 && status < 400) {
    // Without its query, which may hold a token.
    const place = headers.location?.split(/[?#]/, 1)[0] ?? '';
    const to = place === '' ? '' : ` to ${quoted(place, MAX_PLACE_CHARS)}`;
    throw new RequestError(
      'malformed',
      `${label}: answered with a redirect${to} (HTTP ${status}), which is not followed`,
    );
  }
  // opencode answers unknown paths with its web page and status 200.
  const type = headers['content-type'] ?? '';
  const kind = type.split(';', 1)[0]?.slice(0, 100) ?? '';
  if (status === 200 && !type.toLowerCase().startsWith(contentType)) {
    throw new RequestError(
      'malformed',
      `${label}: answered ${kind === '' ? 'no content type' : quoteName(kind)} instead of ${contentType}; not an opencode server, or not this route`,
    );
  }
}
