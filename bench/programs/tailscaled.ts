/**
 * A LocalAPI in a process of its own that knows one caller, whoever asks. Its one argument is `TailscaledOptions` as JSON.
 */
import { ADA, json, startFakeLocalApi, write } from '../../test/rig/fake-local-api.ts';
import { serveOrders } from './orders.ts';

export interface TailscaledOptions {
  /** This machine's address in the tailnet; one of loopback's. */
  readonly address: string;
  /** Address of the one other machine of the same user. */
  readonly peer: string;
  /** Machines of another user beside it. */
  readonly strangers: number;
}

export interface TailscaledPlace {
  readonly socketPath: string;
}

/** Questions since the last time. */
export interface TailscaledCounts {
  readonly whois: number;
  /** With every peer in it. */
  readonly status: number;
}

/** The id of a user whom nobody else of the bench is. */
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
