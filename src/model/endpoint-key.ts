import type { Endpoint } from './candidate.ts';
/** Already in the form that `URL` would give it, which sources mostly give. */
const PLAIN = /^https?:\/\/[a-z0-9.-]+:\d+$/;

/**
 * What makes two endpoints the same one: scheme, host, port, prefix, the headers a person gave, by which a proxy may choose
 * between instances, and whether it is dialled: the same address need not be reachable otherwise.
 */
export function endpointKey({ url, headers, dial }: Endpoint): string {
  const pairs = Object.entries(headers ?? {}).map(
    ([name, value]) => `${name.toLowerCase()}: ${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  if (dial !== undefined) pairs.push('dialled');
  return pairs.length === 0 ? canonical(url) : [canonical(url), ...pairs.toSorted()].join('\n');
}

/** The host as the URL has it, without the brackets of an IPv6 address, and the port, given or not. */
export function addressOf(url: string): { readonly host: string; readonly port: number } {
  if (!URL.canParse(url)) return { host: url, port: 0 };
  const { hostname, port, protocol } = new URL(url);
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port),
  };
}

function canonical(url: string): string {
  if (PLAIN.test(url) || !URL.canParse(url)) return url;
  const { protocol, hostname, pathname } = new URL(url);
  return `${protocol}//${hostname}:${addressOf(url).port}${pathname.replace(/\/$/, '')}`;
}
