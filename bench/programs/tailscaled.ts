/**
 * A LocalAPI in a separate process that identifies every address as one caller. Its only argument is `TailscaledOptions` as JSON.
 */
import { ADA, json, startFakeLocalApi, write } from '../../test/rig/fake/fake-local-api.ts';
import { serveOrders } from './orders.ts';

export interface TailscaledOptions {
  /** This machine's tailnet address; a loopback one. */
  readonly address: string;
  /** Address of the same user's other machine. */
  readonly peer: string;
  /** Further machines, of another user. */
  readonly strangers: number;
}

export interface TailscaledPlace {
  readonly socketPath: string;
}

/** Requests since the last order. */
export interface TailscaledCounts {
  readonly whois: number;
  /** Those with every peer in the answer. */
  readonly status: number;
}

/** The other user's id. */
const STRANGER = 7n;

const { address, peer, strangers } = JSON.parse(process.argv[2] ?? '{}') as TailscaledOptions;
const fake = await startFakeLocalApi({
  status: {
    Self: { ID: 'nSelfCNTRL', HostName: 'self', DNSName: 'self.tailnet.test.', UserID: ADA, TailscaleIPs: [address] },
  },
  peers: [
    { ID: 'nPeerCNTRL', TailscaleIPs: [peer] },
    ...Array.from({ length: strangers }, () => ({ UserID: STRANGER })),
  ],
});
fake.answers.set('whois', (_, response) =>
  json(
    response,
    write({
      Node: { StableID: 'nPeerCNTRL', Name: 'peer.tailnet.test.', User: ADA },
      UserProfile: { ID: ADA, LoginName: 'ada@example.com' },
      CapMap: {},
    }),
  ),
);

const place: TailscaledPlace = { socketPath: fake.socketPath };
await serveOrders(place, () => {
  const asked = fake.asked.splice(0);
  const counts: TailscaledCounts = {
    whois: asked.filter((path) => path.startsWith('whois?')).length,
    status: asked.filter((path) => path === 'status').length,
  };
  return counts;
});
await fake.close();
process.exit(0);
