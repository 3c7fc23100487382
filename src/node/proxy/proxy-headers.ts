import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { Transform } from 'node:stream';
import { basicAuthorization, type Connection } from '../../http/exchange.ts';

/** They belong to one connection (RFC 9110, 7.6.1), or frame a body that gets a new framing. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
  'http2-settings',
]);

/** The caller's own, which mean something else to opencode, and what says who the caller is: only whois does. */
const FROM_CALLER = new Set(['host', 'authorization', 'cookie', 'forwarded', 'via', 'x-real-ip', 'origin', 'referer']);
const IDENTITY = /^(?:x-forwarded-|tailscale-|x-webauth-|remote-|sec-)/;

/** A page of another origin may not read what it is not admitted to; opencode itself would let it. */
const FROM_OPENCODE = /^(?:access-control-|set-cookie$|www-authenticate$|proxy-status$)/;

/** What of a WebSocket handshake goes through although its name begins with Sec-. */
const WEBSOCKET = /^sec-websocket-/;

type Distinct = IncomingMessage['headersDistinct'];

export interface Upstream {
  /** Nothing that is secret is sent where another process than the endpoint's listens. */
  readonly connection: Pick<Connection, 'endpoint' | 'credential'>;
  /** Path and query, below the endpoint's URL. */
  readonly path: string;
  /** What of a good answer's body goes through. */
  readonly filter?: () => Transform;
  /** Sees each answer that goes through. `cut` aborts when it is over on this side. */
  readonly watch?: (answer: IncomingMessage, cut: AbortSignal) => void;
  /** To a browser, what it answers is a page without an origin. */
  readonly isSandboxed?: true;
  /** Headers of the caller that do not go through, in lower case. */
  readonly without?: readonly string[];
  /** Aborts when this way is given up: what goes on by it only waits. */
  readonly left?: AbortSignal;
}

/** The caller's headers as opencode gets them, with the instance's password instead of the caller's. */
export function requestHeaders({ headersDistinct }: IncomingMessage, upstream: Upstream): OutgoingHttpHeaders {
  const headers = passed(headersDistinct, (name) => {
    if (FROM_CALLER.has(name) || upstream.without?.includes(name) === true) return false;
    return !IDENTITY.test(name) || WEBSOCKET.test(name);
  });
  const { endpoint, credential } = upstream.connection;
  headers['host'] = new URL(endpoint.url).host;
  for (const [name, value] of Object.entries(endpoint.headers ?? {}))
    if (typeof value === 'string') headers[name.toLowerCase()] = value;
  if (credential !== undefined) headers['authorization'] = basicAuthorization(credential);
  return headers;
}

/**
 * What an instance serves must not act as the page of the node service, which has the same origin: a browser gives it none. Whoever
 * passes it on from there under an origin of its own takes that away again.
 */
const SANDBOX = 'sandbox';

export function responseHeaders(
  { headersDistinct }: IncomingMessage,
  { isSandboxed, connection }: Pick<Upstream, 'isSandboxed' | 'connection'>,
): OutgoingHttpHeaders {
  const headers = passed(headersDistinct, (name) => !FROM_OPENCODE.test(name));
  const own = (headersDistinct[POLICY] ?? []).filter(
    (one) => connection.endpoint.route === 'loopback' || one !== SANDBOX,
  );
  delete headers[POLICY];
  const policies = isSandboxed === true ? [...own, SANDBOX] : own;
  if (policies.length > 0) headers[POLICY] = policies;
  return headers;
}

/** More than once: each of them holds. */
const POLICY: string = 'content-security-policy';

function passed(headers: Distinct, isPassed: (name: string) => boolean): OutgoingHttpHeaders {
  const named = new Set(
    headers['connection']?.flatMap((value) => value.split(',').map((name) => name.trim().toLowerCase())),
  );
  // Framing is not the caller's to take away.
  named.delete('content-length');
  const kept = Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name) && isPassed(name));
  return Object.fromEntries(kept.map(([name, values = []]) => [name, values.length === 1 ? values[0] : values]));
}
