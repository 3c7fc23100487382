import { timingSafeEqual } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { basicAuthorization } from '../../http/exchange.ts';
import type { Refusal } from '../access/request-guard.ts';
import { LISTENER_LIMITS } from '../listener.ts';
import { Connections } from './connections.ts';
import { hasBody, proxyUpgrade, refuse, tryRequest } from './proxy.ts';
import type { Upstream } from './proxy-headers.ts';
import { hangUp, refuseRaw } from './raw-answer.ts';
import { plainTarget } from './request-target.ts';
import { withoutToken } from './service-routes.ts';

/** Where requests go now. */
export interface ProxyTarget extends Omit<Upstream, 'path'> {
  /** Called if it gave no answer. If set, the next `upstream` may be another route. */
  readonly failed?: () => void;
}

export interface ExchangeProxyOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Undefined if the caller is admitted; `password` if it must authenticate. */
  readonly refusal: (request: IncomingMessage, path: string) => Refusal | 'password' | undefined;
  /** May answer a request before `refusal` is asked; resolves to false if it does not. `signal` aborts when the exchange is over. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<boolean>;
  /** Where to send a request, with that server's password. */
  readonly upstream: () => Promise<ProxyTarget | Refusal>;
}

/** As OpenCode 2 answers, so that clients recognize it. */
const UNAUTHORIZED = JSON.stringify({ _tag: 'UnauthorizedError', message: 'Authentication required' });
/** Routes to one instance that answer a probe and then fail: no more than these are tried. */
const MAX_TRIES = 3;

/**
 * Passes requests, event streams and WebSockets on to one server, replacing the caller's credential with the server's password. The
 * caller's credential ends with this proxy; the server's password never leaves it.
 */
export class ExchangeProxy {
  readonly #options: ExchangeProxyOptions;
  readonly #server: Server;
  readonly #connections = new Connections();
  readonly #ending = new AbortController();

  /** Rejects if it cannot listen there. */
  static async open(options: ExchangeProxyOptions): Promise<ExchangeProxy> {
    const proxy = new ExchangeProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen({ host: options.host, port: options.port, exclusive: true }, resolve);
    });
    proxy.#server.on('error', () => {});
    return proxy;
  }

  private constructor(options: ExchangeProxyOptions) {
    this.#options = options;
    // One listener per exchange.
    setMaxListeners(0, this.#ending.signal);
    const { headersMs, requestMs, checkMs } = LISTENER_LIMITS;
    this.#server = createServer({
      headersTimeout: headersMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: checkMs,
      insecureHTTPParser: false,
      keepAlive: true,
    });
    this.#server.on('connection', (socket) => this.#connections.add(socket));
    this.#server.on('request', (request, response) => void this.#pass(request, response));
    this.#server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends every exchange. Idempotent. */
  close(): void {
    this.#ending.abort();
    this.#server.close();
    this.#connections.destroy();
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const over = this.#connections.busy(request.socket);
    response.once('close', over);
    const gone = new LinkedAbort(this.#ending.signal);
    response.once('close', () => gone.end());
    if ((await this.#options.answer?.(request, response, gone.signal)) === true) return;
    const target = this.#targetOf(request);
    if (target === 'password') {
      response.writeHead(401, {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(UNAUTHORIZED),
        'www-authenticate': 'Basic realm="Secure Area"',
        connection: 'close',
      });
      response.end(UNAUTHORIZED);
    } else if ('status' in target) refuse(response, target);
    else await this.#send(request, response, target.path, gone.signal);
  }

  /** Tries one route after another while nothing was sent, or if the request only reads. */
  async #send(request: IncomingMessage, response: ServerResponse, path: string, signal: AbortSignal): Promise<void> {
    const onlyReads = request.method === 'GET' && !hasBody(request);
    for (let tries = 1; ; tries += 1) {
      const upstream = await this.#upstream();
      if (signal.aborted) return;
      if ('status' in upstream) {
        refuse(response, upstream);
        return;
      }
      const failure = await tryRequest(request, response, { ...upstream, path }, signal);
      if (failure === undefined) return;
      upstream.failed?.();
      if (upstream.failed !== undefined && tries < MAX_TRIES && (onlyReads || failure.isUnsent)) continue;
      refuse(response, failure.refusal, failure.error);
      return;
    }
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const over = this.#connections.busy(request.socket);
    socket.on('error', () => {});
    socket.once('close', over);
    const target = this.#targetOf(request);
    if (target === 'password') {
      refuseRaw(socket, { status: 401, text: 'Authentication required.' });
      return;
    }
    const upstream = 'status' in target ? target : await this.#upstream();
    if ('status' in upstream) refuseRaw(socket, upstream);
    else if (socket.destroyed || 'status' in target) hangUp(socket);
    else await proxyUpgrade(request, socket, head, { ...upstream, path: target.path }, this.#ending.signal);
  }

  /** Never rejects. */
  #upstream(): Promise<ProxyTarget | Refusal> {
    return this.#options.upstream().catch(() => ({ status: 503, text: 'cannot find the instance now; try again.' }));
  }

  #targetOf(request: IncomingMessage): { readonly path: string } | Refusal | 'password' {
    const { url = '', method } = request;
    const target = plainTarget(url);
    const refusal = this.#options.refusal(request, target?.path ?? '');
    if (refusal !== undefined) return refusal;
    if (target === undefined || method === 'CONNECT' || method === 'TRACE')
      return { status: 400, text: 'The request is not for a plain path below the service.' };
    return { path: target.path + withoutToken(target.query) };
  }
}

/** Whether a request has exactly this password. */
export function passwordCheck(password: string): (request: IncomingMessage) => boolean {
  const expected = Buffer.from(basicAuthorization({ username: 'opencode', password }));
  return ({ headersDistinct }) => {
    const [given = '', ...more] = headersDistinct['authorization'] ?? [];
    const sent = Buffer.from(given);
    return more.length === 0 && sent.length === expected.length && timingSafeEqual(sent, expected);
  };
}
