import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorCode } from '../base/errors.ts';
import type { Refusal } from '../node/access/request-guard.ts';
import { ExchangeProxy, type ExchangeProxyOptions } from '../node/proxy/exchange-proxy.ts';
import { refuse } from '../node/proxy/proxy.ts';
import { hostProblem, LOOPBACK } from './forwarder.ts';

export interface DoorOptions {
  /** Of the address that lets in, up to the token. */
  readonly entrance: string;
  /** Path of the page to show first. */
  readonly start: string;
  /** What gives such an address. */
  readonly command: string;
  /** Whether the program at the other end of a connection is this user's. */
  readonly isOwnPeer: (socket: IncomingMessage['socket']) => Promise<boolean>;
  /** Answers requests of an admitted browser. Requests that it does not answer go to `upstream`. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<boolean>;
  /** Says no; default in plain text. */
  readonly refuse?: (request: IncomingMessage, response: ServerResponse, refusal: Refusal) => void;
  readonly upstream: ExchangeProxyOptions['upstream'];
}

/** Open to one browser of this user. */
export interface OpenDoor {
  /** For one browser, once. */
  readonly url: string;
  /** `http://…`, as the browser names it from then on. */
  readonly origin: string;
  close(): void;
}

const COOKIE = 'opencode-mcp';
const SECRET_BYTES = 32;
const NAME_BYTES = 10;
/** IPv6 too: a browser may ask there first, where another user could listen otherwise. */
const LOOPBACK_6 = '::1';
/** Who has the same port there by chance has the next one hardly too. */
const MAX_PORTS = 5;

const FOREIGN: Refusal = { status: 403, text: 'Requests from web pages of other origins are refused.' };
const LINK: Refusal = {
  status: 403,
  text: 'This address cannot be opened from another web page. Paste it into the address bar of your browser.',
};

/**
 * Serves one browser of this user. An address with a token lets it in, once; from then on it has a cookie, under a host name of this
 * run alone, so that no other server of this machine is sent it.
 */
export async function openDoor(options: DoorOptions): Promise<OpenDoor> {
  const door = new Door(options);
  const proxies = await listen(door.options);
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
  readonly options: Omit<ExchangeProxyOptions, 'host' | 'port'>;
  host = '';
  readonly #cookie = randomBytes(SECRET_BYTES).toString('base64url');
  readonly #options: DoorOptions;
  readonly #refuse: NonNullable<DoorOptions['refuse']>;
  #isUsed = false;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#refuse = options.refuse ?? ((_, response, refusal) => refuse(response, refusal));
    this.options = {
      answer: (request, response, signal) => this.#answer(request, response, signal),
      refusal: (request) => this.#refusal(request),
      upstream: options.upstream,
    };
  }

  async #answer(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<boolean> {
    const { url = '', method } = request;
    const { entrance, answer } = this.#options;
    if (url.startsWith(entrance)) {
      const problem = hostProblem(request, this.host) ?? (await this.#problemOf(url, method, request));
      if (problem === undefined) this.#enter(response);
      else refuse(response, problem);
      return true;
    }
    if (answer === undefined) return false;
    const refusal = this.#refusal(request);
    if (refusal === undefined) return await answer(request, response, signal);
    this.#refuse(request, response, refusal);
    return true;
  }

  #enter(response: ServerResponse): void {
    response.writeHead(303, {
      location: this.#options.start,
      'set-cookie': `${COOKIE}=${this.#cookie}; Path=/; HttpOnly; SameSite=Strict`,
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'content-length': 0,
    });
    response.end();
  }

  async #problemOf(
    url: string,
    method: string | undefined,
    { socket, headers }: IncomingMessage,
  ): Promise<Refusal | undefined> {
    const { entrance, command, isOwnPeer } = this.#options;
    const used: Refusal = {
      status: 403,
      text: `This address was used already, or is of an earlier run. Run ${command} again.`,
    };
    // The browser would send the page behind it no cookie, and the address would be used up.
    if (isForeign(headers['sec-fetch-site'])) return LINK;
    if (method !== 'GET' || !isSame(url.slice(entrance.length), this.token)) return used;
    // Anybody sees the command line of what starts the browser.
    if (!(await isOwnPeer(socket)))
      return {
        status: 403,
        text: `What asks is another user’s program, or cannot be known for one of the user who ran ${command}.`,
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
    const isIn = cookie.split(';').some((pair) => isSame(pair.trim(), `${COOKIE}=${this.#cookie}`));
    if (isIn) return undefined;
    return { status: 403, text: `This browser was not let in. Run ${this.#options.command}.` };
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
