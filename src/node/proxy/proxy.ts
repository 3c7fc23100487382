import {
  type ClientRequest,
  type IncomingMessage,
  request as requestHttp,
  type RequestOptions,
  type ServerResponse,
} from 'node:http';
import { request as requestHttps } from 'node:https';
import { type Duplex, pipeline } from 'node:stream';
import { dialConnector } from '../../base/dial.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { whenConnected } from '../../http/port-holder.ts';
import { requestHeaders, responseHeaders, type Upstream } from './proxy-headers.ts';
import { answerRaw, hangUp } from './raw-answer.ts';
import type { Refusal } from '../access/request-guard.ts';

const LOCKED: Refusal = {
  status: 502,
  text: 'The instance refused the password that is known for it on its own machine, or none is known. Start it with opencode-connected, or set OPENCODE_SERVER_PASSWORD for the node service; restart an OpenCode 2 with opencode service restart.',
};

/** Why the instance gave no answer. Nothing has been sent to the caller yet. */
export interface ProxyFailure {
  readonly refusal: Refusal;
  /** An error type of RFC 9209. */
  readonly error?: string;
  /** The instance did not act and the body is unread: the request may be sent again. */
  readonly isUnsent: boolean;
}

/**
 * Sends the request to the instance and streams the answer back, with backpressure and without buffering. Resolves when the
 * exchange is over, however it ended. `signal` ends it, and must abort when the caller disconnects.
 */
export async function proxyRequest(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<void> {
  const failure = await tryRequest(request, response, upstream, signal);
  if (failure === undefined) return;
  const over = new Promise((resolve) => response.once('close', resolve));
  refuse(response, failure.refusal, failure.error);
  await over;
}

/** As `proxyRequest`, but returns a failure instead of answering it. There is no time limit: a turn may take hours. */
export function tryRequest(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<ProxyFailure | undefined> {
  return new Promise((resolve) => {
    const headers = requestHeaders(request, upstream);
    const isChunked = request.headers['transfer-encoding'] !== undefined;
    // Node does not frame the body of a GET or DELETE by itself; the server would read it as the next request.
    if (isChunked) headers['transfer-encoding'] = 'chunked';
    const cut = new LinkedAbort(signal, upstream.left);
    const sent = send(upstream, { method: request.method, headers, signal: cut.signal });
    let wasSent = false;
    let isOver = false;
    const settle = (failure?: ProxyFailure): void => {
      isOver = true;
      response.off('close', close);
      cut.end();
      resolve(failure);
    };
    const close = (): void => settle();
    const fail = (failure: ProxyFailure): void => {
      // A consequence of the first failure; the caller may be getting an answer by another route.
      if (isOver) return;
      const isUnanswered = !signal.aborted && !response.headersSent;
      if (!isUnanswered) response.destroy();
      settle(isUnanswered ? failure : undefined);
    };
    response.once('close', close);
    sent.once('response', (answer) => {
      const problem = problemOf(answer, upstream, !hasBody(request));
      if (problem !== undefined) {
        answer.destroy();
        fail(problem);
        return;
      }
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, responseHeaders(answer, upstream));
      // An event stream may be silent for ten seconds after its head.
      response.flushHeaders();
      upstream.watch?.(answer, cut.signal);
      const { filter } = upstream;
      if (filter === undefined || answer.statusCode !== 200) pipeline(answer, response, () => {});
      else pipeline(answer, filter(), response, () => {});
    });
    sent.on('error', (error: NodeJS.ErrnoException) => fail(failureOf(error, upstream, !wasSent)));
    whenSafe(sent, upstream, () => {
      wasSent = true;
      // Not `pipeline`, which would destroy the request and with it the connection that carries the refusal.
      if (hasBody(request)) request.pipe(sent);
      else sent.end();
    });
  });
}

export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || headers['content-length'] !== undefined;
}

/** A connection per request: a reused one may break at that moment, and a prompt must not be sent twice. */
function send({ connection, path }: Upstream, options: RequestOptions): ClientRequest {
  const { url, dial } = connection.endpoint;
  const { protocol, hostname, port, pathname } = new URL(url);
  const isSecure = protocol === 'https:';
  const to: RequestOptions = {
    ...options,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (isSecure ? 443 : 80) : port,
    path: pathname.replace(/\/$/, '') + path,
    ...(dial === undefined ? { agent: false } : { createConnection: dialConnector(dial) }),
  };
  return isSecure ? requestHttps(to) : requestHttp(to);
}

/** Why this is not the instance's answer to the caller, or undefined. */
function problemOf(
  { statusCode, headers }: IncomingMessage,
  { connection }: Upstream,
  isUnsent: boolean,
): ProxyFailure | undefined {
  if (statusCode === 401) return { refusal: LOCKED, isUnsent };
  // A node service refused it. opencode on this machine is not behind one.
  const proxyStatus = connection.endpoint.route === 'loopback' ? undefined : headers['proxy-status'];
  if (proxyStatus === undefined) return undefined;
  const text = `The node service of that machine did not pass the request on (HTTP ${statusCode}).`;
  return { refusal: { status: 502, text }, isUnsent: false };
}

/** Another user or process holds the port. */
class WithheldError extends Error {}

function failureOf(
  error: NodeJS.ErrnoException,
  { connection: { endpoint } }: Upstream,
  isUnsent: boolean,
): ProxyFailure {
  if (error instanceof WithheldError)
    return { refusal: { status: 502, text: `${error.message}.` }, error: 'destination_unavailable', isUnsent };
  const { port, hostname } = new URL(endpoint.url);
  const place = endpoint.route === 'loopback' ? `on port ${port}` : `at ${hostname}`;
  return {
    refusal: { status: 502, text: `The instance ${place} does not answer: ${error.code ?? 'broken answer'}.` },
    error: error.code === 'ECONNREFUSED' ? 'connection_refused' : 'connection_terminated',
    isUnsent,
  };
}

/** Calls `send` once connected, if no secret is sent or the right process listens there. */
function whenSafe(sent: ClientRequest, { connection }: Upstream, send: () => void): void {
  const { endpoint } = connection;
  const isGuarded =
    connection.credential !== undefined || endpoint.headers !== undefined || endpoint.holderPid !== undefined;
  whenConnected(sent, isGuarded ? endpoint : undefined, (withheld) => {
    if (withheld === undefined) send();
    else sent.destroy(new WithheldError(withheld.reason));
  });
}

/** As `proxyRequest`, for a WebSocket: after the handshake bytes pass unchanged. */
export function proxyUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const headers = { ...requestHeaders(request, upstream), connection: 'Upgrade', upgrade: 'websocket' };
    const ended = new LinkedAbort(signal, upstream.left);
    const sent = send(upstream, { method: 'GET', headers, signal: ended.signal });
    const fail = (status: number, reason: string): void => {
      const headers = { connection: 'close', 'content-length': '0' };
      if (socket.writable && !signal.aborted) answerRaw(socket, { status, reason, headers });
      hangUp(socket);
    };
    const cut = (): void => void socket.destroy();
    ended.signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    socket.once('close', () => {
      ended.end();
      sent.destroy();
      resolve();
    });
    sent.once('upgrade', (answer, peer, peerHead) => {
      answerRaw(socket, { status: 101, reason: 'Switching Protocols', headers: upgradeHeaders(answer, upstream) });
      if (peerHead.length > 0) socket.write(peerHead);
      if (head.length > 0) peer.write(head);
      join(socket, peer);
    });
    sent.once('response', (answer) => {
      answer.destroy();
      fail(answer.statusCode === 401 ? LOCKED.status : (answer.statusCode ?? 502), 'Refused by the instance');
    });
    sent.on('error', () => fail(502, 'Bad Gateway'));
    whenSafe(sent, upstream, () => sent.end());
  });
}

/** Pipes both directions with backpressure; the end of one side ends the other. */
function join(one: Duplex, other: Duplex): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => {});
    from.once('close', () => to.destroy());
    from.pipe(to);
  }
}

function upgradeHeaders(answer: IncomingMessage, upstream: Upstream): Record<string, string | readonly string[]> {
  const kept = Object.entries(responseHeaders(answer, upstream)).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, typeof value === 'number' ? String(value) : value] as const],
  );
  return { ...Object.fromEntries(kept), connection: 'Upgrade', upgrade: 'websocket' };
}

/** RFC 9209 errors by status; `http_request_denied` for all others. */
const PROXY_ERRORS: ReadonlyMap<number, string> = new Map([
  [404, 'destination_not_found'],
  [500, 'proxy_internal_error'],
  [503, 'destination_unavailable'],
]);

/**
 * Answers in plain text and closes the connection, since an unread body would be parsed as the next request. `Proxy-Status` marks
 * it as not the instance's answer; its error tells whether the instance may have seen the request.
 */
export function refuse(
  response: ServerResponse,
  { status, text, forInstance }: Refusal,
  error = PROXY_ERRORS.get(status) ?? 'http_request_denied',
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = `${text}\n`;
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
    connection: 'close',
    ...(forInstance !== true && { 'proxy-status': `opencode-mcp; error=${error}` }),
  });
  response.end(body);
}
