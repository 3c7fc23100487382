import type { TailnetNode, TailnetStatus } from './types.ts';

export interface Allowed {
  /** Tags whose nodes count as one's own. */
  readonly tags: readonly string[];
  /** Logins whose nodes count as one's own. */
  readonly users: readonly string[];
}

/** Nobody runs opencode on them, and asking would wake them. As Tailscale writes them. */
const OTHER_SYSTEMS: ReadonlySet<string> = new Set(['ios', 'android', 'tvos', 'watchos', 'visionos', 'js']);

/**
 * The peers that may have instances of one's own: of the own user, of the users and tags named; no phones and TVs, no
 * expired keys, no exit nodes for hire, and nodes of other tailnets only where their user is named.
 */
export function eligiblePeers(status: TailnetStatus, allowed: Allowed): TailnetNode[] {
  const { self, logins } = status;
  const users = new Set(allowed.users.map((login) => login.toLowerCase()));
  const tags = new Set(allowed.tags);
  const isNamed = ({ userId }: TailnetNode): boolean => users.has((logins.get(userId) ?? '').toLowerCase());
  // A tagged machine belongs to nobody, whatever user id it still has.
  const ownUser = self === undefined || self.tags.length > 0 || self.userId === '' ? undefined : self.userId;
  return status.peers.filter((peer) => {
    if (peer.expired || peer.exitNodeForHire || OTHER_SYSTEMS.has(peer.os.toLowerCase())) return false;
    if (peer.tags.length > 0) return !peer.shared && peer.tags.some((tag) => tags.has(tag));
    if (peer.shared) return isNamed(peer);
    return peer.userId === ownUser || isNamed(peer);
  });
}

/** The address of `peer` that this machine can use: of a family that both have, IPv4 first. */
export function addressFor(peer: TailnetNode, self: TailnetNode | undefined): string | undefined {
  const own = self?.addresses ?? [];
  return [isV4, isV6].flatMap((isFamily) => (own.some(isFamily) ? (peer.addresses.find(isFamily) ?? []) : [])).at(0);
}

function isV6(address: string): boolean {
  return address.includes(':');
}

function isV4(address: string): boolean {
  return !isV6(address);
}
