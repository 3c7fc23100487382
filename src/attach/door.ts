import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorCode } from '../base/errors.ts';
import type { Refusal } from '../node/access/request-guard.ts';
import { ExchangeProxy, type ExchangeProxyOptions } from '../node/proxy/exchange-proxy.ts';
import { refuse } from '../node/proxy/proxy.ts';
import { hostProblem, LOOPBACK } from './forwarder.ts';

export interface DoorOptions {
  /** Path that admits a browser; the token follows it. */
  readonly entrance: string;
  /** Where an admitted browser is redirected to. */
  readonly start: string;
  /** The command that prints the address; named in refusals. */
  readonly command: string;
  /** Whether the other end of a connection belongs to this user. */
  readonly isOwnPeer: (socket: IncomingMessage['socket']) => Promise<boolean>;
  /** Answers requests of the admitted browser; false passes a request on to `upstream`. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<boolean>;
  /** Writes a refusal; default: plain text. */
  readonly refuse?: (request: IncomingMessage, response: ServerResponse, refusal: Refusal) => void;
  readonly upstream: ExchangeProxyOptions['upstream'];
}

export interface OpenDoor {
  /** Admits one browser, once. */
  readonly url: string;
  /** `http://…`, used by the admitted browser. */
  readonly origin: string;
  close(): void;
}

const COOKIE = 'opencode-mcp';
const SECRET_BYTES = 32;
const NAME_BYTES = 10;
/** A browser may try IPv6 first, and another user could listen there if this program did not. */
const LOOPBACK_6 = '::1';
/** Another program may hold the same port on IPv6, but hardly five times in a row. */
const MAX_PORTS = 5;

const FOREIGN: Refusal = { status: 403, text: 'Requests from web pages of other origins are refused.' };
const LINK: Refusal = {
  status: 403,
  text: 'This address cannot be opened from another web page. Paste it into the address bar of your browser.',
};

/**
 * Serves one browser of this user. An address with a token admits it, once; after that it has a cookie. The host name is new in each
 * run, so that no other server of this machine gets the cookie.
 */
export async function openDoor(options: DoorOptions): Promise<OpenDoor> {
  const door = new Door(options);
  const proxies = await listen(door.proxyOptions);
  door.host = `${door.name}.localhost:${proxies[0].port}`;
  const origin = `http://${door.host}`;
  return {
    url: origin + options.entrance + door.token,
    origin,
    close: () => proxies.forEach((proxy) => proxy.close()),
  };
}

class Door {
  readonly name = randomBytes(NAME_BYTES).toString('hex');
  readonly token = randomBytes(SECRET_BYTES).toString('base64url');
  readonly proxyOptions: Omit<ExchangeProxyOptions, 'host' | 'port'>;
  /** Set once the port is known. */
  host = '';
  readonly #cookie = randomBytes(SECRET_BYTES).toString('base64url');
  readonly #options: DoorOptions;
  readonly #refuse: NonNullable<DoorOptions['refuse']>;
  #isUsed = false;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#refuse = options.refuse ?? ((_, response, refusal) => refuse(response, refusal));
    this.proxyOptions = {
      answer: (request, response, signal) => this.#answer(request, response, signal),
      refusal: (request) => this.#refusal(request),
      upstream: options.upstream,
    };
  }

  async #answer(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<boolean> {
    const { entrance, answer } = this.#options;
    if (request.url?.startsWith(entrance) === true) {
      const problem = hostProblem(request, this.host) ?? (await this.#entranceProblem(request));
      if (problem === undefined) this.#admit(response);
      else refuse(response, problem);
      return true;
    }
    if (answer === undefined) return false;
    const refusal = this.#refusal(request);
    if (refusal === undefined) return await answer(request, response, signal);
    this.#refuse(request, response, refusal);
    return true;
  }

  #admit(response: ServerResponse): void {
    response.writeHead(303, {
      location: this.#options.start,
      'set-cookie': `${COOKIE}=${this.#cookie}; Path=/; HttpOnly; SameSite=Strict`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'content-length': 0,
    });
    response.end();
  }

  /** Why this request does not admit its browser. Without a problem, the address is used from now on. */
  async #entranceProblem({ url = '', method, socket, headers }: IncomingMessage): Promise<Refusal | undefined> {
    const { entrance, command, isOwnPeer } = this.#options;
    const used: Refusal = {
      status: 403,
      text: `This address was already used, or belongs to an earlier run. Run ${command} again.`,
    };
    // SameSite=Strict: after a link from another site the browser would not send the new cookie, and the token would be wasted.
    if (isForeign(headers['sec-fetch-site'])) return LINK;
    if (method !== 'GET' || !isSame(url.slice(entrance.length), this.token)) return used;
    // Other users can read the address from the command line that starts the browser.
    if (!(await isOwnPeer(socket)))
      return {
        status: 403,
        text: `Access denied: cannot verify that this browser belongs to the user who ran ${command}.`,
      };
    if (this.#isUsed) return used;
    this.#isUsed = true;
    return undefined;
  }

  #refusal(request: IncomingMessage): Refusal | undefined {
    const { origin, cookie = '', 'sec-fetch-site': site } = request.headers;
    const wrongHost = hostProblem(request, this.host);
    if (wrongHost !== undefined) return wrongHost;
    if (origin !== undefined && origin !== `http://${this.host}`) return FOREIGN;
    if (isForeign(site)) return FOREIGN;
    const isAdmitted = cookie.split(';').some((pair) => isSame(pair.trim(), `${COOKIE}=${this.#cookie}`));
    if (isAdmitted) return undefined;
    return { status: 403, text: `This browser is not admitted. Run ${this.#options.command}.` };
  }
}

async function listen(
  options: Omit<ExchangeProxyOptions, 'host' | 'port'>,
): Promise<readonly [ExchangeProxy, ...ExchangeProxy[]]> {
  for (let tries = 1; ; tries += 1) {
    const proxy = await ExchangeProxy.open({ ...options, host: LOOPBACK, port: 0 });
    try {
      return [proxy, await ExchangeProxy.open({ ...options, host: LOOPBACK_6, port: proxy.port })];
    } catch (error) {
      // Without IPv6, nobody else can listen there either.
      if (errorCode(error) !== 'EADDRINUSE') return [proxy];
      proxy.close();
      if (tries === MAX_PORTS) throw error;
    }
  }
}

/** Whether a page of another origin caused the request, by `sec-fetch-site`; `none` means that a person typed the address. */
function isForeign(site: IncomingMessage['headers'][string]): boolean {
  return site !== undefined && site !== 'same-origin' && site !== 'none';
}

function isSame(given: string, expected: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(expected)];
  return one.length === other.length && timingSafeEqual(one, other);
}
