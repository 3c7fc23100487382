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
  /** Its origin, safe to show. */
  readonly from?: string;
}

/** The value of the header `Authorization` (RFC 7617). */
export function basicAuthorization({ username, password }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}

/** Everything that a request to one opencode server needs. */
export interface Connection {
  readonly endpoint: Endpoint;
  readonly credential?: Credential;
  /** Called right before a request with side effects is sent; an exception prevents that. */
  readonly beforeChange?: () => void;
}

export interface RequestLimits {
  /** For the whole exchange, including the body. */
  readonly timeoutMs: number;
  /** Largest body. */
  readonly maxBytes: number;
  /** Cuts longer strings in JSON (`CUT_MARK`); `maxBytes` counts what is left. */
  readonly maxStringBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RequestInit {
  /** Default: GET. */
  readonly method?: string;
  /** JSON. */
  readonly body?: string;
  /** Accepts any content type in the answer. */
  readonly anyType?: boolean;
}

export interface Exchange {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** Enough for a page of messages with tool output. */
export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/**
 * One HTTP exchange, bounded in time and size, with a JSON or empty body and without redirects.
 * Returns error statuses except 401. Rejects with `RequestError`, or with what `beforeChange` throws.
 */
export async function exchange(
  connection: Connection,
  path: string,
  init: RequestInit,
  limits: RequestLimits,
): Promise<Exchange> {
  const { method = 'GET', body, anyType = false } = init;
  const outgoing = {
    ...outgoingOf(connection, method, path, body),
    pooled: true,
    beforeSend: method === 'GET' ? undefined : connection.beforeChange,
  };
  const call = new HttpCall(outgoing, limits.signal);
  try {
    call.limit(limits.timeoutMs);
    const response = await responseTo(call, outgoing.label, anyType ? '' : 'application/json');
    const text = await call.text(response, limits.maxBytes, limits.maxStringBytes);
    return { status: response.statusCode ?? 0, headers: response.headers, text };
  } finally {
    call.end();
  }
}

/** One exchange with any answer, even one not from opencode. Rejects with `RequestError`, or the reason of `signal`. */
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

/** As `requestJson`, with the time of the server's clock, ms since the epoch, if it sent one. */
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

/** Opens an event stream on its own socket, for the caller to read. `signal` ends it, and must abort eventually. */
export async function openStream(
  connection: Connection,
  path: string,
  limits: { readonly headersTimeoutMs: number; readonly signal: AbortSignal },
): Promise<IncomingMessage> {
  const { headers, ...outgoing } = outgoingOf(connection, 'GET', path);
  const accepting = { ...headers, accept: 'text/event-stream' };
  const call = new HttpCall({ ...outgoing, headers: accepting, pooled: false }, limits.signal);
  try {
    call.limit(limits.headersTimeoutMs);
    const response = await responseTo(call, outgoing.label, 'text/event-stream');
    const { statusCode: status = 0 } = response;
    if (status !== 200) throw new RequestError('status', `${outgoing.label}: HTTP ${status}`, { status });
    call.limit(undefined);
    return response;
  } catch (error) {
    call.end();
    throw error;
  }
}

/** Without the query, which may contain a directory or a title. */
function labelOf(method: string, { endpoint }: Connection, path: string): string {
  return `${method} ${endpoint.url}${path.split('?', 1)[0]}`;
}

function outgoingOf(connection: Connection, method: string, path: string, body?: string): Omit<Outgoing, 'pooled'> {
  const { endpoint, credential } = connection;
  const { url, dial, headers, holderPid } = endpoint;
  // A service without a password is identified only by the process that holds its port.
  const isGuarded = credential !== undefined || headers !== undefined || holderPid !== undefined;
  return {
    method,
    url: url + path,
    headers: requestHeaders(connection, body),
    body,
    label: labelOf(method, connection, path),
    dial,
    secretFor: isGuarded ? endpoint : undefined,
  };
}

/** The headers of an opencode's answer. Rejects if it is from a proxy, a 401, or not of `contentType`. */
async function responseTo(call: HttpCall, label: string, contentType: string): Promise<IncomingMessage> {
  const response = await call.headers();
  await checkPassedOn(response, call, label);
  await checkAdmitted(response, call, label);
  checkResponse(response, label, contentType);
  return response;
}

function requestHeaders({ endpoint, credential }: Connection, body: string | undefined): Record<string, string> {
  const given = Object.entries(endpoint.headers ?? {});
  const headers = Object.fromEntries(given.filter((pair): pair is [string, string] => typeof pair[1] === 'string'));
  if (credential !== undefined) headers['authorization'] = basicAuthorization(credential);
  if (body !== undefined) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(Buffer.byteLength(body));
  }
  return headers;
}

/** Errors of RFC 9209 which mean that the proxy did not forward the request. */
const NOT_PASSED_ON =
  /;\s*error\s*=\s*"?(?:http_request_denied|destination_not_found|destination_unavailable|connection_refused)\b/i;
const MAX_REFUSAL_BYTES = 16 * 1024;
const MAX_REFUSAL_CHARS = 400;
const MAX_TARGET_CHARS = 200;

/** An error of the node service must not be taken for one of the instance, such as a missing session. */
async function checkPassedOn(response: IncomingMessage, call: HttpCall, label: string): Promise<void> {
  const { statusCode: status = 0, headers } = response;
  if (!NOT_PASSED_ON.test(String(headers['proxy-status'] ?? ''))) return;
  const text = await call.text(response, MAX_REFUSAL_BYTES);
  throw new RequestError(
    'unreachable',
    `${label}: not passed on to the instance, HTTP ${status}; the proxy answered ${quoted(text, MAX_REFUSAL_CHARS)}`,
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
    // Without the query, which may contain a token.
    const target = headers.location?.split(/[?#]/, 1)[0] ?? '';
    const to = target === '' ? '' : ` to ${quoted(target, MAX_TARGET_CHARS)}`;
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
