import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorCode } from '../base/errors.ts';
import type { Refusal } from '../node/access/request-guard.ts';
import { ExchangeProxy, type ExchangeProxyOptions, type ProxyTarget } from '../node/proxy/exchange-proxy.ts';
import { refuse } from '../node/proxy/proxy.ts';
import { hostProblem, LOOPBACK } from './forwarder.ts';

export interface WebForwarderOptions {
  readonly endpoint: () => Promise<ProxyTarget | Refusal>;
  /** Path of the page to show first. */
  readonly start: string;
  /** Whether the program at the other end of a connection is this user's. */
  readonly isOwnPeer: (socket: IncomingMessage['socket']) => Promise<boolean>;
}

export interface WebForwarder {
  /** For one browser, once. */
  readonly url: string;
  close(): void;
}

const ENTRANCE = '/opencode-mcp/enter/';
const COOKIE = 'opencode-mcp';
const SECRET_BYTES = 32;
const NAME_BYTES = 10;
/** IPv6 too: a browser may ask there first, where another user could listen otherwise. */
const LOOPBACK_6 = '::1';
/** Who has the same port there by chance has the next one hardly too. */
const MAX_PORTS = 5;

const USED: Refusal = {
  status: 403,
  text: 'This address was used already, or is of an earlier run. Run opencode-mcp open again.',
};
const NOT_YOURS: Refusal = {
  status: 403,
  text: 'What asks is another user’s program, or cannot be known for one of the user who ran opencode-mcp open.',
};
const FOREIGN: Refusal = { status: 403, text: 'Requests from web pages of other origins are refused.' };
const LINK: Refusal = {
  status: 403,
  text: 'This address cannot be opened from another web page. Paste it into the address bar of your browser.',
};
const NO_COOKIE: Refusal = { status: 403, text: 'This browser was not let in. Run opencode-mcp open.' };

/**
 * Passes on to one instance what one browser of this user asks. An address with a token lets it in, once; from then on it has a
 * cookie, under a host name of this run alone, so that no other server of this machine is sent it.
 */
export async function openWebForwarder(options: WebForwarderOptions): Promise<WebForwarder> {
  const door = new Door(options);
  const proxies = await listen(door.options);
  door.host = `${door.name}.localhost:${proxies[0].port}`;
  return {
    url: `http://${door.host}${ENTRANCE}${door.token}`,
    close: () => proxies.forEach((proxy) => proxy.close()),
  };
}

class Door {
  readonly name = randomBytes(NAME_BYTES).toString('hex');
  readonly token = randomBytes(SECRET_BYTES).toString('base64url');
  readonly options: Omit<ExchangeProxyOptions, 'host' | 'port'>;
  host = '';
  readonly #cookie = randomBytes(SECRET_BYTES).toString('base64url');
  readonly #options: WebForwarderOptions;
  #isUsed = false;

  constructor(options: WebForwarderOptions) {
    this.#options = options;
    const { endpoint } = options;
    this.options = {
      answer: (request, response) => this.#enter(request, response),
      refusal: (request) => this.#refusal(request),
      // A node service takes no browser, since any page could make one ask; here none but ours can.
      upstream: async () => ({ ...(await endpoint()), without: ['user-agent'] }),
    };
  }

  async #enter(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    const { url = '', method } = request;
    if (!url.startsWith(ENTRANCE)) return false;
    const problem = hostProblem(request, this.host) ?? (await this.#problemOf(url, method, request));
    if (problem !== undefined) {
      refuse(response, problem);
      return true;
    }
    response.writeHead(303, {
      location: this.#options.start,
      'set-cookie': `${COOKIE}=${this.#cookie}; Path=/; HttpOnly; SameSite=Strict`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'content-length': 0,
    });
    response.end();
    return true;
  }

  async #problemOf(
    url: string,
    method: string | undefined,
    { socket, headers }: IncomingMessage,
  ): Promise<Refusal | undefined> {
    // The browser would send the page behind it no cookie, and the address would be used up.
    if (isForeign(headers['sec-fetch-site'])) return LINK;
    if (method !== 'GET' || !isSame(url.slice(ENTRANCE.length), this.token)) return USED;
    // Anybody sees the command line of what starts the browser.
    if (!(await this.#options.isOwnPeer(socket))) return NOT_YOURS;
    if (this.#isUsed) return USED;
    this.#isUsed = true;
    return undefined;
  }

  #refusal(request: IncomingMessage): Refusal | undefined {
    const { origin, cookie = '', 'sec-fetch-site': site } = request.headers;
    const wrongHost = hostProblem(request, this.host);
    if (wrongHost !== undefined) return wrongHost;
    if (origin !== undefined && origin !== `http://${this.host}`) return FOREIGN;
    if (isForeign(site)) return FOREIGN;
    const isIn = cookie.split(';').some((pair) => isSame(pair.trim(), `${COOKIE}=${this.#cookie}`));
    return isIn ? undefined : NO_COOKIE;
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
      // Without IPv6 nobody can listen there.
      if (errorCode(error) !== 'EADDRINUSE') return [proxy];
      proxy.close();
      if (tries === MAX_PORTS) throw error;
    }
  }
}

/** What browsers say of a request that a page of another origin caused; of what a person typed they say `none`. */
function isForeign(site: IncomingMessage['headers'][string]): boolean {
  return site !== undefined && site !== 'same-origin' && site !== 'none';
}

function isSame(given: string, expected: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(expected)];
  return one.length === other.length && timingSafeEqual(one, other);
}
