import type { Connection } from '../http/exchange.ts';

/** Whether anything of this machine gets there by the URL alone: loopback, with nothing to be put in or looked at. */
export function isDirect({ endpoint, credential }: Connection): boolean {
  const { url, dial, headers, holderPid } = endpoint;
  const { protocol, hostname, pathname } = new URL(url);
  const isLoopback = hostname === '127.0.0.1' || hostname === 'localhost' || hostname === '[::1]';
  const isBare = credential === undefined && headers === undefined && dial === undefined && holderPid === undefined;
  return isLoopback && isBare && protocol === 'http:' && pathname === '/';
}
