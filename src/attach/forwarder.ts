import type { IncomingMessage } from 'node:http';
import type { Refusal } from '../node/access/request-guard.ts';
import { ExchangeProxy, passwordCheck, type ProxyTarget } from '../node/proxy/exchange-proxy.ts';

/** Of this machine alone. */
export const LOOPBACK = '127.0.0.1';

/** Passes on to one instance what has this password, from programs of this machine: no web page's. Ends with `close`. */
export async function openForwarder(
  endpoint: () => Promise<ProxyTarget | Refusal>,
  password: string,
): Promise<ExchangeProxy> {
  const isAllowed = passwordCheck(password);
  const proxy: ExchangeProxy = await ExchangeProxy.open({
    host: LOOPBACK,
    port: 0,
    refusal: (request) => {
      const { origin, 'sec-fetch-site': site } = request.headers;
      if (origin !== undefined || site !== undefined)
        return { status: 403, text: 'Web pages are not served here; opencode-mcp open is for the browser.' };
      return hostProblem(request, `${LOOPBACK}:${proxy.port}`) ?? (isAllowed(request) ? undefined : 'password');
    },
    upstream: endpoint,
  });
  return proxy;
}

/** A name that a foreign page has pointed at this address (DNS rebinding) is not the one that was given out. */
export function hostProblem({ headersDistinct }: IncomingMessage, expected: string): Refusal | undefined {
  const hosts = headersDistinct['host'] ?? [];
  if (hosts.length === 1 && hosts[0]?.toLowerCase() === expected) return undefined;
  return { status: 421, text: 'The Host header names another machine.' };
}
