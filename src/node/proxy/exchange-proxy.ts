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
  /** It gave no answer. Where there is this, what `way` gives next may do better. */
  readonly failed?: () => void;
}

export interface ExchangeProxyOptions {
  /** To listen at. */
  readonly host: string;
  /** Any free one where 0. */
  readonly port: number;
  /** Who may ask: `password` for who has to say it, undefined for who may. */
  readonly refusal: (request: IncomingMessage, path: string) => Refusal | 'password' | undefined;
  /** Answers a request by itself, before `refusal` is asked; false where it does not. `signal` aborts when the exchange is over. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<boolean>;
  /** Where to send it, with the password of whoever is there. */
  readonly upstream: () => Promise<ProxyTarget | Refusal>;
}

/** As OpenCode 2 itself refuses, so that it is known for one. */
const UNAUTHORIZED = JSON.stringify({ _tag: 'UnauthorizedError', message: 'Authentication required' });
/** Nobody has more ways to one instance that answer a look, and then nothing else. */
const MAX_TRIES = 3;

/**
 * Passes requests, event streams and WebSockets on to one server, with that server's password in the place of what its own callers
 * have. What they have ends with this proxy; the server's password goes nowhere else.
 */
export class ExchangeProxy {
  readonly #options: ExchangeProxyOptions;
  readonly #server: Server;
  readonly #connections = new Connections();
  readonly #ending = new AbortController();

  /** Rejects where it cannot listen there. */
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
    // One for each exchange.
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

  /** By one way after the other, as long as nothing was sent, or it only reads. */
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
    return this.#options.upstream().catch(() => ({ status: 503, text: 'Where it is cannot be found out now.' }));
  }

  #targetOf(request: IncomingMessage): { readonly path: string } | Refusal | 'password' {
    const { url = '', method } = request;
    const target = plainTarget(url);
    const refusal = this.#options.refusal(request, target?.path ?? '');
    if (refusal !== undefined) return refusal;
    if (target === undefined || method === 'CONNECT' || method === 'TRACE')
      return { status: 400, text: 'This is no plain request of a path below the service.' };
    return { path: target.path + withoutToken(target.query) };
  }
}

/** Whether a request has this password, and only it. */
export function passwordCheck(password: string): (request: IncomingMessage) => boolean {
  const expected = Buffer.from(basicAuthorization({ username: 'opencode', password }));
  return ({ headersDistinct }) => {
    const [given = '', ...more] = headersDistinct['authorization'] ?? [];
    const sent = Buffer.from(given);
    return more.length === 0 && sent.length === expected.length && timingSafeEqual(sent, expected);
  };
}
