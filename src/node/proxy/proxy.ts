import { type ClientRequest, type IncomingMessage, request as requestHttp, type ServerResponse } from 'node:http';
import { isIPv6 } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import { whenConnected } from '../../http/port-holder.ts';
import { requestHeaders, responseHeaders, type Upstream } from './proxy-headers.ts';
import { answerRaw, hangUp } from './raw-answer.ts';
import type { Refusal } from '../access/request-guard.ts';

/** opencode on loopback accepts at once; how long it takes to answer is its own business (a turn may take hours). */
const LOOPBACK = '127.0.0.1';

const LOCKED: Refusal = {
  status: 502,
  text: 'The instance refused the password that is known for it on its own machine, or none is known. Start it with opencode-connected, or set OPENCODE_SERVER_PASSWORD for the node service; restart an OpenCode 2 with opencode service restart.',
};

/**
 * Sends the request to the instance and streams the answer back: nothing is kept, and neither side is read faster than the
 * other takes it. Resolves when it is over, however it ended. `signal` cuts it, and must abort when the caller goes.
 */
export function proxyRequest(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const headers = requestHeaders(request, upstream);
    const isChunked = request.headers['transfer-encoding'] !== undefined;
    const hasBody = isChunked || request.headers['content-length'] !== undefined;
    // Node frames no body of a GET or DELETE by itself: it would be read as the next request.
    if (isChunked) headers['transfer-encoding'] = 'chunked';
    const { host = LOOPBACK, port, path } = upstream;
    const { method } = request;
    // A connection for each: a kept one may break just as it is used again, and a prompt must not be sent twice.
    const sent = requestHttp({ host, port, path, method, headers, agent: false, signal });
    response.once('close', resolve);
    sent.once('response', (answer) => {
      if (answer.statusCode === 401) {
        answer.destroy();
        refuse(response, LOCKED);
        return;
      }
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, responseHeaders(answer));
      // An event stream may say nothing for ten seconds after its head.
      response.flushHeaders();
      const { filter } = upstream;
      if (filter === undefined || answer.statusCode !== 200) pipeline(answer, response, () => {});
      else pipeline(answer, filter(), response, () => {});
    });
    sent.on('error', (error: NodeJS.ErrnoException) => {
      if (signal.aborted || response.headersSent) response.destroy();
      else if (error instanceof WithheldError)
        refuse(response, { status: 502, text: `${error.message}.` }, 'destination_unavailable');
      else
        refuse(
          response,
          { status: 502, text: `The instance on port ${port} does not answer: ${error.code ?? 'broken answer'}.` },
          error.code === 'ECONNREFUSED' ? 'connection_refused' : 'connection_terminated',
        );
    });
    whenSafe(sent, upstream, () => {
      // Not a pipeline: that would destroy the request, and with it the connection that the refusal goes out on.
      if (hasBody) request.pipe(sent);
      else sent.end();
    });
  });
}

/** The wrong user or process holds the port. */
class WithheldError extends Error {}

/** Sends by `send` what has no password, or may have it where it goes. */
function whenSafe(
  sent: ClientRequest,
  { host = LOOPBACK, port, credential, holderPid }: Upstream,
  send: () => void,
): void {
  if (credential === undefined && holderPid === undefined) {
    send();
    return;
  }
  const url = `http://${isIPv6(host) ? `[${host}]` : host}:${port}`;
  whenConnected(sent, { url, ...(holderPid !== undefined && { holderPid }) }, (withheld) => {
    if (withheld === undefined) send();
    else sent.destroy(new WithheldError(withheld.reason));
  });
}

/** As `proxyRequest`, for a WebSocket: from the handshake on, bytes go through as they come. */
export function proxyUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const headers = { ...requestHeaders(request, upstream), connection: 'Upgrade', upgrade: 'websocket' };
    const { host = LOOPBACK, port, path } = upstream;
    const sent = requestHttp({ host, port, path, method: 'GET', headers, agent: false, signal });
    const fail = (status: number, reason: string): void => {
      const headers = { connection: 'close', 'content-length': '0' };
      if (socket.writable && !signal.aborted) answerRaw(socket, { status, reason, headers });
      hangUp(socket);
    };
    const cut = (): void => void socket.destroy();
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    socket.once('close', () => {
      signal.removeEventListener('abort', cut);
      sent.destroy();
      resolve();
    });
    sent.once('upgrade', (answer, peer, peerHead) => {
      answerRaw(socket, { status: 101, reason: 'Switching Protocols', headers: upgradeHeaders(answer) });
      if (peerHead.length > 0) socket.write(peerHead);
      if (head.length > 0) peer.write(head);
      join(socket, peer);
    });
    sent.once('response', (answer) => {
      // Its body is of no use to a WebSocket client.
      answer.destroy();
      fail(answer.statusCode === 401 ? LOCKED.status : (answer.statusCode ?? 502), 'Refused by the instance');
    });
    sent.on('error', () => fail(502, 'Bad Gateway'));
    whenSafe(sent, upstream, () => sent.end());
  });
}

/** Bytes both ways, each side no faster than the other takes them; neither outlives the other. */
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

function upgradeHeaders(answer: IncomingMessage): Record<string, string | readonly string[]> {
  const kept = Object.entries(responseHeaders(answer)).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, typeof value === 'number' ? String(value) : value] as const],
  );
  return { ...Object.fromEntries(kept), connection: 'Upgrade', upgrade: 'websocket' };
}

/** Errors of RFC 9209 that stand for a status; for the others `http_request_denied` does. */
const PROXY_ERRORS: ReadonlyMap<number, string> = new Map([
  [404, 'destination_not_found'],
  [500, 'proxy_internal_error'],
  [503, 'destination_unavailable'],
]);

/**
 * Answers with plain text and closes the connection: a body that nobody read would be taken for the next request. `Proxy-Status`
 * tells that it is no answer of the instance, and by its error whether the instance may have seen the request.
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
