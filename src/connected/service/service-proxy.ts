import type { Connection } from '../../http/exchange.ts';
import type { Refusal } from '../../node/access/request-guard.ts';
import { ExchangeProxy, passwordCheck } from '../../node/proxy/exchange-proxy.ts';

export interface ServiceProxyOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** The callers' password, for this proxy alone. */
  readonly password: string;
  /** The service's current address, with its own password. Undefined while there is none. */
  readonly service: () => Promise<Pick<Connection, 'endpoint' | 'credential'> | undefined>;
}

/** These create a login that outlives the proxy and its password. */
const LOGINS = /^\/(?:api\/pair|auth)(?:\/|$)/i;
const NO_LOGINS: Refusal = {
  status: 403,
  text: 'A login of its own is not given here: it would outlive this connection.',
};
const NOT_RUNNING: Refusal = {
  status: 503,
  text: 'The OpenCode 2 service of that machine is not running; start opencode there.',
};

/** Serves the user's OpenCode 2 service, whose password is permanent, behind another password. Rejects if it cannot listen. */
export function openServiceProxy({ host, port, password, service }: ServiceProxyOptions): Promise<ExchangeProxy> {
  const isAllowed = passwordCheck(password);
  return ExchangeProxy.open({
    host,
    port,
    refusal: (request, path) => {
      if (!isAllowed(request)) return 'password';
      return LOGINS.test(decodeURIComponent(path)) ? NO_LOGINS : undefined;
    },
    upstream: async () => {
      const connection = await service().catch(() => undefined);
      return connection === undefined ? NOT_RUNNING : { connection };
    },
  });
}
