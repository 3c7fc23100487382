import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { basicAuthorization } from '../../http/exchange.ts';
import { LISTENER_LIMITS } from '../../node/listener.ts';
import { Connections } from '../../node/proxy/connections.ts';
import { proxyRequest, proxyUpgrade, refuse } from '../../node/proxy/proxy.ts';
import type { Upstream } from '../../node/proxy/proxy-headers.ts';
import { hangUp, refuseRaw } from '../../node/proxy/raw-answer.ts';
import { plainTarget } from '../../node/proxy/request-target.ts';
import { withoutToken } from '../../node/proxy/service-routes.ts';

export interface ExchangeProxyOptions {
  /** To listen at. */
  readonly host: string;
  /** Any free one where 0. */
  readonly port: number;
  /** What callers have; of this proxy alone. */
  readonly password: string;
  /** The service as it is written down now, with its own password. Undefined while there is none. */
  readonly service: () => Promise<Omit<Upstream, 'path'> | undefined>;
}

/** They make a login that outlives this proxy and its password. */
const LOGINS = /^\/(?:api\/pair|auth)(?:\/|$)/i;

/** As OpenCode 2 itself refuses, so that it is known for one. */
const UNAUTHORIZED = JSON.stringify({ _tag: 'UnauthorizedError', message: 'Authentication required' });

/**
 * Passes requests, event streams and WebSockets on to the user's own OpenCode 2 service, with the service's password in the place
 * of a random one. The random one ends with this proxy; the service's, which is permanent, goes nowhere else.
 */
export class ExchangeProxy {
  readonly #options: ExchangeProxyOptions;
  readonly #server: Server;
  readonly #connections = new Connections();
  readonly #ending = new AbortController();
  readonly #expected: Buffer;

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
    this.#expected = Buffer.from(basicAuthorization({ username: 'opencode', password: options.password }));
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
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    if (!this.#isAllowed(request)) {
      response.writeHead(401, {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(UNAUTHORIZED),
        'www-authenticate': 'Basic realm="Secure Area"',
        connection: 'close',
      });
      response.end(UNAUTHORIZED);
      return;
    }
    const upstream = await this.#upstreamOf(request);
    if ('status' in upstream) refuse(response, upstream);
    else await proxyRequest(request, response, upstream, AbortSignal.any([gone.signal, this.#ending.signal]));
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const over = this.#connections.busy(request.socket);
    socket.on('error', () => {});
    socket.once('close', over);
    if (!this.#isAllowed(request)) {
      refuseRaw(socket, { status: 401, text: 'Authentication required.' });
      return;
    }
    const upstream = await this.#upstreamOf(request);
    if ('status' in upstream) refuseRaw(socket, upstream);
    else if (socket.destroyed) hangUp(socket);
    else await proxyUpgrade(request, socket, head, upstream, this.#ending.signal);
  }

  #isAllowed({ headersDistinct }: IncomingMessage): boolean {
    const [given = '', ...more] = headersDistinct['authorization'] ?? [];
    const sent = Buffer.from(given);
    return more.length === 0 && sent.length === this.#expected.length && timingSafeEqual(sent, this.#expected);
  }

  async #upstreamOf({ url = '', method }: IncomingMessage): Promise<Upstream | { status: number; text: string }> {
    const target = plainTarget(url);
    if (target === undefined || method === 'CONNECT' || method === 'TRACE')
      return { status: 400, text: 'This is no plain request of a path below the service.' };
    if (LOGINS.test(decodeURIComponent(target.path)))
      return { status: 403, text: 'A login of its own is not given here: it would outlive this connection.' };
    const service = await this.#options.service().catch(() => undefined);
    if (service === undefined)
      return { status: 503, text: 'The OpenCode 2 service of that machine is not running; start opencode there.' };
    return { ...service, path: target.path + withoutToken(target.query) };
  }
}
