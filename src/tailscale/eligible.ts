import type { TailnetSettings } from '../config/settings.ts';
import { quoteShort } from '../base/plain-text.ts';
import type { TailnetNode, TailnetStatus } from './types.ts';

/** As Tailscale names them. Nobody runs opencode on them, and a request would wake them. */
const OTHER_SYSTEMS: ReadonlySet<string> = new Set(['ios', 'android', 'tvos', 'watchos', 'visionos', 'js']);

export interface SortedPeers {
  /** Peers that may have instances of this user. */
  readonly eligible: readonly TailnetNode[];
  /** With the reason and, if a setting can include them, that setting. */
  readonly others: readonly { readonly peer: TailnetNode; readonly reason: string }[];
}

/**
 * Eligible are the peers of this user and of the allowed users and tags, without phones and TVs, expired keys and exit nodes for
 * hire. Nodes of other tailnets are eligible only if their user is allowed.
 */
export function sortPeers(status: TailnetStatus, allowed: Pick<TailnetSettings, 'tags' | 'users'>): SortedPeers {
  const judge = judgeOf(status, allowed);
  const eligible: TailnetNode[] = [];
  const others: { peer: TailnetNode; reason: string }[] = [];
  for (const peer of status.peers) {
    const reason = judge(peer);
    if (reason === undefined) eligible.push(peer);
    else others.push({ peer, reason });
  }
  return { eligible, others };
}

/** Returns why a peer is not eligible, or undefined if it is. */
function judgeOf(
  { self, logins }: TailnetStatus,
  allowed: Pick<TailnetSettings, 'tags' | 'users'>,
): (peer: TailnetNode) => string | undefined {
  const users = new Set(allowed.users.map((login) => login.toLowerCase()));
  const tags = new Set(allowed.tags);
  const isNamed = ({ userId }: TailnetNode): boolean => users.has((logins.get(userId) ?? '').toLowerCase());
  // A tagged machine belongs to no user, whatever its user id.
  const ownUser = self === undefined || self.tags.length > 0 || self.userId === '' ? undefined : self.userId;
  return (peer) => {
    if (peer.expired) return 'its key has expired; run tailscale up there';
    if (peer.exitNodeForHire) return 'an exit node for hire';
    if (OTHER_SYSTEMS.has(peer.os.toLowerCase()))
      return `runs ${quoteShort(peer.os, 20)}, which opencode does not support`;
    if (peer.tags.length > 0) {
      if (!peer.shared && peer.tags.some((tag) => tags.has(tag))) return undefined;
      return `tagged ${quoteShort(peer.tags.join(','), 100)}, and so of no user; name a tag in OPENCODE_TAILNET_TAGS to list it`;
    }
    if (isNamed(peer) || (!peer.shared && peer.userId === ownUser)) return undefined;
    const owner = quoteShort(logins.get(peer.userId) ?? 'another user', 100);
    return `belongs to ${owner}; name that login in OPENCODE_TAILNET_USERS to list it`;
  };
}

/** The address of `peer` in a family that both machines have, IPv4 first. */
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
