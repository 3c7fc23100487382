import { quoteName, singleLine } from '../base/plain-text.ts';
import type { TailnetNode, TailnetStatus } from './types.ts';

export interface Allowed {
  /** Tags whose nodes count as one's own. */
  readonly tags: readonly string[];
  /** Logins whose nodes count as one's own. */
  readonly users: readonly string[];
}

/** Nobody runs opencode on them, and asking would wake them. As Tailscale writes them. */
const OTHER_SYSTEMS: ReadonlySet<string> = new Set(['ios', 'android', 'tvos', 'watchos', 'visionos', 'js']);

/** The peers of a status, sorted out. */
export interface SortedPeers {
  /** May have instances of one's own. */
  readonly eligible: readonly TailnetNode[];
  /** With the reason, and what would list them where something would. */
  readonly others: readonly { readonly peer: TailnetNode; readonly reason: string }[];
}

/**
 * Eligible are those of the own user, of the users and tags named; no phones and TVs, no expired keys, no exit nodes for hire,
 * and nodes of other tailnets only where their user is named.
 */
export function sortPeers(status: TailnetStatus, allowed: Allowed): SortedPeers {
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

/** Tells why a peer is not one's own, or undefined where it is. */
function judgeOf({ self, logins }: TailnetStatus, allowed: Allowed): (peer: TailnetNode) => string | undefined {
  const users = new Set(allowed.users.map((login) => login.toLowerCase()));
  const tags = new Set(allowed.tags);
  const isNamed = ({ userId }: TailnetNode): boolean => users.has((logins.get(userId) ?? '').toLowerCase());
  // A tagged machine belongs to nobody, whatever user id it still has.
  const ownUser = self === undefined || self.tags.length > 0 || self.userId === '' ? undefined : self.userId;
  return (peer) => {
    if (peer.expired) return 'its key has expired; run tailscale up there';
    if (peer.exitNodeForHire) return 'an exit node for hire';
    if (OTHER_SYSTEMS.has(peer.os.toLowerCase()))
      return `runs ${quoteName(singleLine(peer.os, 20))}, where no opencode runs`;
    if (peer.tags.length > 0) {
      if (!peer.shared && peer.tags.some((tag) => tags.has(tag))) return undefined;
      return `tagged ${quoteName(singleLine(peer.tags.join(','), 100))}, and so nobody's; name a tag in OPENCODE_TAILNET_TAGS to list it`;
    }
    if (isNamed(peer) || (!peer.shared && peer.userId === ownUser)) return undefined;
    const owner = quoteName(singleLine(logins.get(peer.userId) ?? 'another user', 100));
    return `belongs to ${owner}; name that login in OPENCODE_TAILNET_USERS to list it`;
  };
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
