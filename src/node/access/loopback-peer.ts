import {
  holdersOf,
  kernelAddress,
  readSocketTable,
  type SocketHolder,
  type SocketRow,
} from '../../base/socket-table.ts';

/** Ports of an accepted loopback connection, as the accepting side sees them. */
export interface LoopbackConnection {
  readonly localPort: number;
  readonly remotePort: number;
}

export interface LoopbackPeerDeps {
  /** The user that tailscaled runs as; undefined if unknown. */
  readonly tailscaledUid: () => Promise<number | undefined>;
  readonly readSockets: () => Promise<readonly SocketRow[] | undefined>;
  readonly holders: (inode: string) => Promise<readonly Pick<SocketHolder, 'name'>[]>;
}

/** The kernel's own tables. */
export const kernelSockets = { readSockets: readSocketTable, holders: holdersOf };

/** As IPv4, and mapped into IPv6. */
const LOOPBACK = new Set(['127.0.0.1', '::ffff:127.0.0.1'].map(kernelAddress));

/**
 * Why the far end of a loopback connection is not tailscaled's, or undefined if it is. With userspace networking whois
 * goes by the source port alone, and any local process may bind a port that tailscaled has just released.
 */
export async function strangerAtLoopback(
  { localPort, remotePort }: LoopbackConnection,
  { tailscaledUid, readSockets, holders }: LoopbackPeerDeps,
): Promise<string | undefined> {
  const [uid, rows] = await Promise.all([tailscaledUid(), readSockets()]);
  if (uid === undefined) return 'the user that tailscaled runs as is unknown';
  if (rows === undefined) return 'this system does not show who holds a socket';
  const ends = rows.filter(
    ({ local, remote }) =>
      local.port === remotePort &&
      remote.port === localPort &&
      LOOPBACK.has(local.address) &&
      LOOPBACK.has(remote.address),
  );
  const [end] = ends;
  if (end === undefined || ends.length > 1) return 'the other end of the connection was not found';
  // A closed socket shows as root's, and tailscaled usually runs as root.
  if (end.inode === '0') return 'the other end of the connection was closed';
  if (end.uid !== uid)
    return `the other end of the connection belongs to user id ${end.uid}, not to tailscaled's ${uid}`;
  const found = await holders(end.inode);
  if (found.length > 0 && !found.some(({ name }) => name === 'tailscaled'))
    return 'the other end of the connection is not held by tailscaled';
  return undefined;
}
