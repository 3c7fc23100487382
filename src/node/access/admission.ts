import * as z from 'zod';
import { quoteShort } from '../../base/plain-text.ts';
import type { TailnetNode, Whois } from '../../tailscale/types.ts';

/** `read` sees sessions; `drive` may do everything, which equals a shell as the service's user. */
export type Role = 'read' | 'drive';

/**
 * The application capability by which a tailnet policy grants access:
 * `"grants": [{"src": […], "dst": […], "ip": ["tcp:4095"], "app": {"opencode-mcp.dev/cap/opencode": [{"role": "read"}]}}]`.
 * Several objects are a union; unknown fields and roles grant nothing.
 */
export const CAPABILITY = 'opencode-mcp.dev/cap/opencode';

/** Callers that may drive, besides the node's own user and those with a grant. */
export interface AdmissionRules {
  /** Login names. */
  readonly users: readonly string[];
  /** With the `tag:` prefix. */
  readonly tags: readonly string[];
}

export interface AdmissionFacts {
  /** Undefined: tailscaled does not know the address. */
  readonly whois: Whois | undefined;
  readonly self: TailnetNode;
  /** The caller's node in tailscaled's status; undefined fails closed. */
  readonly peer: TailnetNode | undefined;
  readonly rules: AdmissionRules;
}

export type Admission =
  | {
      readonly role: Role;
      readonly caller: string;
      /** Stable id of the caller's node. */
      readonly node: string;
      /** The caller is this node's user, on another machine. */
      readonly isNodeUser?: true;
    }
  /** For the caller: their apparent identity, and the settings that would admit them. */
  | { readonly refusal: string; readonly caller: string };

/** `unanswered`: tailscaled could not identify the caller, who is not admitted. */
export type Verdict = Admission | { readonly unanswered: string; readonly caller: string };

const MAX_SHOWN_CHARS = 200;
/** Tags named in a refusal; machines have one or two. */
const MAX_TAGS = 10;

/** Decides what the caller may do here. Pure. */
export function admit(facts: AdmissionFacts): Admission {
  const { whois, self, peer } = facts;
  if (whois === undefined) {
    const refusal =
      'The tailnet does not know your address. Connect from a machine that is in the tailnet, to this machine’s tailnet name or address.';
    return { refusal, caller: 'an unknown caller' };
  }
  const caller = callerOf(whois);
  if (whois.node.id === self.id) return refuseSelf(caller);
  if (peer?.expired === true) {
    return { refusal: `You appear to be ${caller}, whose key has expired. Log that machine in again.`, caller };
  }
  const roles = rolesOf(facts, whois);
  const node = whois.node.id;
  if (isOwnUser(facts, whois)) return { role: 'drive', caller, node, isNodeUser: true };
  if (roles.has('drive')) return { role: 'drive', caller, node };
  if (roles.has('read')) return { role: 'read', caller, node };
  return { refusal: `You appear to be ${caller}, who is not admitted here. ${remedyOf(facts, whois)}`, caller };
}

/** For a connection from one of this machine's own addresses: whois names its owner for any local user. */
export function refuseSelf(caller = 'this machine itself'): Admission {
  const refusal = `You appear to be ${caller}: this very machine. Any of its users could call from there, so it is not served; use the instances on loopback.`;
  return { refusal, caller };
}

/** For a loopback connection that tailscaled did not open: any local user could have. */
export function refuseStranger(reason: string): Admission {
  const refusal = `Your connection did not come through tailscaled: ${reason}. Connect from another machine of the tailnet, to this machine’s tailnet name or address.`;
  return { refusal, caller: 'a local process' };
}

function isOwnUser({ self, peer }: AdmissionFacts, { node, userId }: Whois): boolean {
  const isOfThisTailnet = peer !== undefined && !peer.shared;
  const isPerson = node.tags.length === 0 && self.tags.length === 0 && userId !== '';
  return isPerson && isOfThisTailnet && self.userId === userId && node.userId === userId;
}

function rolesOf({ peer, rules }: AdmissionFacts, whois: Whois): ReadonlySet<Role> {
  const { tags } = whois.node;
  // Names and tags of another tailnet may equal ours: for a shared node only its login and grants count.
  const isOfThisTailnet = peer !== undefined && !peer.shared;
  const roles = new Set<Role>(grantedRoles(whois.capabilities.get(CAPABILITY) ?? []));
  if (tags.length > 0) {
    // Every tagged machine has the login `tagged-devices`.
    if (isOfThisTailnet && tags.some((tag) => rules.tags.includes(tag))) roles.add('drive');
    return roles;
  }
  const login = whois.login.toLowerCase();
  if (login !== '' && rules.users.some((user) => user.toLowerCase() === login)) roles.add('drive');
  return roles;
}

const grantSchema = z.object({ role: z.enum(['read', 'drive']) });

function grantedRoles(grants: readonly unknown[]): readonly Role[] {
  return grants.flatMap((grant) => {
    const parsed = grantSchema.safeParse(grant);
    return parsed.success ? [parsed.data.role] : [];
  });
}

function callerOf({ node, login }: Whois): string {
  const machine = node.dnsName === '' ? `node ${shown(node.id)}` : shown(node.dnsName);
  if (node.tags.length > 0)
    return `the tagged machine ${machine} (${node.tags.slice(0, MAX_TAGS).map(shown).join(', ')})`;
  return `${shown(login)} on ${machine}`;
}

function shown(name: string): string {
  return quoteShort(name, MAX_SHOWN_CHARS);
}

function remedyOf({ self, peer }: AdmissionFacts, whois: Whois): string {
  const grant = `a grant of the app capability ${CAPABILITY} with {"role": "read"} or {"role": "drive"} in the tailnet's policy`;
  const isTagged = whois.node.tags.length > 0;
  const shared = peer?.shared === true;
  if (isTagged && shared) return `What would admit you, a machine shared from another tailnet: ${grant}.`;
  const [name, value] = isTagged
    ? ['OPENCODE_TAILNET_TAGS', whois.node.tags[0] ?? '']
    : ['OPENCODE_TAILNET_USERS', whois.login];
  const where = shown(self.dnsName === '' ? self.hostName : self.dnsName);
  return `What would admit you: ${name}=${shown(value)} for the node service on ${where}, or ${grant}.`;
}
