import type { Refusal } from '../node/access/request-guard.ts';
import type { ProxyTarget } from '../node/proxy/exchange-proxy.ts';
import { type DoorOptions, type OpenDoor, openDoor } from './door.ts';

export interface WebForwarderOptions extends Pick<DoorOptions, 'start' | 'isOwnPeer'> {
  readonly endpoint: () => Promise<ProxyTarget | Refusal>;
}

/** Passes on to one instance what one browser of this user asks. */
export async function openWebForwarder({ endpoint, ...options }: WebForwarderOptions): Promise<OpenDoor> {
  return await openDoor({
    ...options,
    entrance: '/opencode-mcp/enter/',
    command: 'opencode-mcp open',
    // A node service takes no browser, since any page could make one ask; here none but ours can.
    upstream: async () => ({ ...(await endpoint()), without: ['user-agent'] }),
  });
}
