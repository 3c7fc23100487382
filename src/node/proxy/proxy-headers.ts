import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { Transform } from 'node:stream';
import { basicAuthorization, type Connection } from '../../http/exchange.ts';

/** Headers of one connection (RFC 9110, 7.6.1), and of the framing of a body, which node:http writes itself. */
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

/** Headers that mean something else to opencode, or claim who the caller is: only whois decides that. */
const FROM_CALLER = new Set(['host', 'authorization', 'cookie', 'forwarded', 'via', 'x-real-ip', 'origin', 'referer']);
const IDENTITY = /^(?:x-forwarded-|tailscale-|x-webauth-|remote-|sec-)/;

/** opencode's own CORS headers would let pages of other origins read its answers. */
const FROM_OPENCODE = /^(?:access-control-|set-cookie$|www-authenticate$|proxy-status$)/;

/** Passed although IDENTITY matches them. */
const WEBSOCKET = /^sec-websocket-/;

type Distinct = IncomingMessage['headersDistinct'];

export interface Upstream {
  /** The credential is sent only if the endpoint's own process listens there. */
  readonly connection: Pick<Connection, 'endpoint' | 'credential'>;
  /** Path and query, below the endpoint's URL. */
  readonly path: string;
  /** Filters the body of a 200. */
  readonly filter?: () => Transform;
  /** Sees each answer that is passed on. `cut` aborts when the exchange ends. */
  readonly watch?: (answer: IncomingMessage, cut: AbortSignal) => void;
  /** Its pages get an opaque origin in the browser; see `SANDBOX`. */
  readonly isSandboxed?: true;
  /** Caller's headers to drop, in lower case. */
  readonly without?: readonly string[];
  /** Aborts when this endpoint is given up; ends the exchanges on it. */
  readonly left?: AbortSignal;
}

/** The caller's headers for opencode, with the instance's password in place of the caller's. */
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
 * An instance's pages are served from the origin of the node service's own page, but must not act as that page. With this policy a
 * browser gives them an opaque origin. A proxy that serves them from another origin removes the policy again.
 */
const SANDBOX = 'sandbox';

export function responseHeaders(
  { headersDistinct }: IncomingMessage,
  { isSandboxed, connection }: Pick<Upstream, 'isSandboxed' | 'connection'>,
): OutgoingHttpHeaders {
  const headers = passed(headersDistinct, (name) => !FROM_OPENCODE.test(name));
  // On loopback no other proxy can have added the policy.
  const own = (headersDistinct[POLICY] ?? []).filter(
    (one) => connection.endpoint.route === 'loopback' || one !== SANDBOX,
  );
  delete headers[POLICY];
  const policies = isSandboxed === true ? [...own, SANDBOX] : own;
  if (policies.length > 0) headers[POLICY] = policies;
  return headers;
}

/** If this header is sent more than once, all its policies apply. */
const POLICY: string = 'content-security-policy';

function passed(headers: Distinct, isPassed: (name: string) => boolean): OutgoingHttpHeaders {
  const named = new Set(
    headers['connection']?.flatMap((value) => value.split(',').map((name) => name.trim().toLowerCase())),
  );
  // `connection: content-length` must not remove the framing of a body.
  named.delete('content-length');
  const kept = Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name) && isPassed(name));
  return Object.fromEntries(kept.map(([name, values = []]) => [name, values.length === 1 ? values[0] : values]));
}
