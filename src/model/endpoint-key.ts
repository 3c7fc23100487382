import { urlHost } from '../base/urls.ts';
import type { Endpoint } from './candidate.ts';

/** Already normalised, as most sources write it: saves parsing. */
const NORMALISED = /^https?:\/\/[a-z0-9.-]+:\d+$/;

/**
 * Equal for two endpoints that are the same: scheme, host, port, prefix, the configured headers (a proxy may route by
 * them), and whether it is dialled (an address may be reachable only by dialling).
 */
export function endpointKey({ url, headers, dial }: Endpoint): string {
  const pairs = Object.entries(headers ?? {}).map(
    ([name, value]) => `${name.toLowerCase()}: ${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  if (dial !== undefined) pairs.push('dialled');
  return pairs.length === 0 ? canonical(url) : [canonical(url), ...pairs.toSorted()].join('\n');
}

/** The host, an IPv6 address without brackets, and the port, explicit or the scheme's default. */
export function addressOf(url: string): { readonly host: string; readonly port: number } {
  if (!URL.canParse(url)) return { host: url, port: 0 };
  const { port, protocol } = new URL(url);
  return { host: urlHost(url), port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port) };
}

function canonical(url: string): string {
  if (NORMALISED.test(url) || !URL.canParse(url)) return url;
  const { protocol, hostname, pathname } = new URL(url);
  return `${protocol}//${hostname}:${addressOf(url).port}${pathname.replace(/\/$/, '')}`;
}
