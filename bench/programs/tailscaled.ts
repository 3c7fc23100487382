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
  /** Status requests whose answer contains every peer. */
  readonly status: number;
}

/** The user id of `strangers`. */
const STRANGER_USER_ID = 7n;

const { address, peer, strangers } = JSON.parse(process.argv[2] ?? '{}') as TailscaledOptions;
const fake = await startFakeLocalApi({
  status: {
    Self: { ID: 'nSelfCNTRL', HostName: 'self', DNSName: 'self.tailnet.test.', UserID: ADA, TailscaleIPs: [address] },
  },
  peers: [
    { ID: 'nPeerCNTRL', TailscaleIPs: [peer] },
    ...Array.from({ length: strangers }, () => ({ UserID: STRANGER_USER_ID })),
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
  const paths = fake.asked.splice(0);
  const counts: TailscaledCounts = {
    whois: paths.filter((path) => path.startsWith('whois?')).length,
    status: paths.filter((path) => path === 'status').length,
  };
  return counts;
});
await fake.close();
process.exit(0);
