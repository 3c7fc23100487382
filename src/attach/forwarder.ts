import type { IncomingMessage } from 'node:http';
import type { Refusal } from '../node/access/request-guard.ts';
import { ExchangeProxy, passwordCheck, type ProxyTarget } from '../node/proxy/exchange-proxy.ts';

export const LOOPBACK = '127.0.0.1';

/** Forwards requests with this password to one instance, from programs of this machine but not from web pages. */
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
        return { status: 403, text: 'Browsers are refused here; use opencode-mcp open.' };
      return hostProblem(request, `${LOOPBACK}:${proxy.port}`) ?? (isAllowed(request) ? undefined : 'password');
    },
    upstream: endpoint,
  });
  return proxy;
}

/** Refuses other host names, which prevents DNS rebinding. */
export function hostProblem({ headersDistinct }: IncomingMessage, expected: string): Refusal | undefined {
  const hosts = headersDistinct['host'] ?? [];
  if (hosts.length === 1 && hosts[0]?.toLowerCase() === expected) return undefined;
  return { status: 421, text: 'The Host header names another machine.' };
}
