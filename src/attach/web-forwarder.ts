import type { Refusal } from '../node/access/request-guard.ts';
import type { ProxyTarget } from '../node/proxy/exchange-proxy.ts';
import { type DoorOptions, type OpenDoor, openDoor } from './door.ts';

export interface WebForwarderOptions extends Pick<DoorOptions, 'start' | 'isOwnPeer'> {
  readonly endpoint: () => Promise<ProxyTarget | Refusal>;
}

/** Forwards one browser of this user to one instance. */
export async function openWebForwarder({ endpoint, ...options }: WebForwarderOptions): Promise<OpenDoor> {
  return await openDoor({
    ...options,
    entrance: '/opencode-mcp/enter/',
    command: 'opencode-mcp open',
    // A node service refuses browsers, since any page could use one; here only our page can.
    upstream: async () => ({ ...(await endpoint()), without: ['user-agent'] }),
  });
}
