import type { Connection } from '../http/exchange.ts';

/** Whether any program of this machine can use the URL as it is: loopback, without password, headers or a check of the port's holder. */
export function isDirect({ endpoint, credential }: Connection): boolean {
  const { url, dial, headers, holderPid } = endpoint;
  const { protocol, hostname, pathname } = new URL(url);
  const isLoopback = hostname === '127.0.0.1' || hostname === 'localhost' || hostname === '[::1]';
  const isBare = credential === undefined && headers === undefined && dial === undefined && holderPid === undefined;
  return isLoopback && isBare && protocol === 'http:' && pathname === '/';
}
