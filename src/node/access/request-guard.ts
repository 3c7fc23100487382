import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import { PAGE_HEADER } from '../../page/contract.ts';
import type { RequestTarget } from '../proxy/request-target.ts';
import type { TailnetNode } from '../../tailscale/types.ts';

/** An HTTP answer in place of the instance's. The text is for the caller. */
export interface Refusal {
  readonly status: number;
  readonly text: string;
  /** Counts as the instance's answer, not as a refusal of the proxy. */
  readonly forInstance?: true;
}

export const AWAY: Refusal = { status: 503, text: 'This machine is not in a tailnet at the moment.' };

/** Headers that set the body's length or the target: if one is repeated, two parsers can read two different requests. */
const SINGLE = ['host', 'content-length', 'transfer-encoding', 'upgrade', 'origin'];

const HOST = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;

/** Why a request is refused from any caller, or undefined. Pure. */
export function guardRequest(
  request: Pick<IncomingMessage, 'method' | 'headers' | 'headersDistinct'>,
  self: TailnetNode,
  target?: RequestTarget,
): Refusal | undefined {
  const { headers, headersDistinct, method } = request;
  const twice = SINGLE.find((name) => (headersDistinct[name]?.length ?? 0) > 1);
  if (twice !== undefined) return { status: 400, text: `The header ${twice} was sent more than once.` };
  if (headers['content-length'] !== undefined && headers['transfer-encoding'] !== undefined)
    return { status: 400, text: 'Content-Length and Transfer-Encoding exclude each other.' };
  if (method === 'TRACE' || method === 'CONNECT') return { status: 405, text: `${method} is not served.` };
  const host = headers.host ?? '';
  // DNS rebinding: a foreign page can point a name of its own at this address.
  if (!HOST.test(host) || !namesOf(self).has(hostnameOf(host)))
    return { status: 421, text: 'The Host header names another machine. Use this machine’s tailnet name or address.' };
  return guardBrowser(headers, host, target);
}

/**
 * A web page can make its visitor's browser send requests here, and with `?directory=` a plain GET runs code. A page
 * cannot omit Origin except on a plain GET, and cannot change the browser's User-Agent on a plain GET.
 */
function guardBrowser(
  headers: IncomingMessage['headers'],
  host: string,
  target: RequestTarget | undefined,
): Refusal | undefined {
  const { origin } = headers;
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`)
    return { status: 403, text: 'Requests from web pages of other origins are refused.' };
  const site = headers['sec-fetch-site'];
  const isBrowser = /^\s*Mozilla\//i.test(headers['user-agent'] ?? '') || site !== undefined;
  if (isBrowser && target?.kind === 'page' && isForPage(headers, target)) return undefined;
  // Whatever an instance serves would share the page's origin and could act there as the visitor.
  if (isBrowser && target?.kind === 'instance') return BROWSER;
  if (isBrowser && site !== 'same-origin' && site !== 'none' && origin === undefined) return BROWSER;
  return undefined;
}

const BROWSER: Refusal = {
  status: 403,
  text: 'Web browsers are served the page at / and nothing else: a page of another origin could have sent this. Other programs are served; for a terminal use opencode attach.',
};

/** The page's files hold no data, and its data needs a header that a page of another origin cannot send. */
function isForPage(headers: IncomingMessage['headers'], target: Extract<RequestTarget, { kind: 'page' }>): boolean {
  return 'file' in target || headers[PAGE_HEADER] === '1';
}

/** In lower case, IPv6 in brackets. */
function namesOf({ addresses, dnsName }: TailnetNode): ReadonlySet<string> {
  const name = dnsName.toLowerCase();
  const names = name === '' ? [] : [name, name.split('.', 1)[0] ?? name];
  return new Set([...names, ...addresses.map((address) => hostnameOf(isIPv6(address) ? `[${address}]` : address))]);
}

function hostnameOf(host: string): string {
  const url = `http://${host}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/\.$/, '') : '';
}
