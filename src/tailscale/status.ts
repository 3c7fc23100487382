import { isIP } from 'node:net';
import * as z from 'zod';
import type { TailnetNode, TailnetStatus, Whois } from './types.ts';

/**
 * Ids have up to 19 digits, and JSON.parse rounds above 2^53, so they are made strings first. Matches keys only, because quotes
 * inside a JSON string are escaped.
 */
const NUMERIC_ID = /"(UserID|AltSharerUserID|NodeID|ID|User|Sharer)"(\s*:\s*)(-?\d+)/g;

/** Parses an answer of the LocalAPI, with ids as exact strings. Throws a SyntaxError. */
export function parseExact(text: string): unknown {
  return JSON.parse(text.replace(NUMERIC_ID, '"$1"$2"$3"')) as unknown;
}

const text = z.string().nullish();
const flag = z.boolean().nullish();
const texts = z.array(z.string()).nullish();

const peerSchema = z.object({
  ID: z.string().min(1),
  HostName: text,
  DNSName: text,
  OS: text,
  UserID: text,
  TailscaleIPs: texts,
  Tags: texts,
  Online: flag,
  Expired: flag,
  ShareeNode: flag,
  AltSharerUserID: text,
});
type Peer = z.infer<typeof peerSchema>;

const statusSchema = z.object({
  Version: text,
  BackendState: z.string(),
  TUN: flag,
  Self: peerSchema.nullish().catch(undefined),
  Peer: z.record(z.string(), z.unknown()).nullish(),
  User: z.record(z.string(), z.object({ LoginName: text })).nullish(),
  MagicDNSSuffix: text,
  CurrentTailnet: z.object({ MagicDNSSuffix: text }).nullish(),
});

/** Tailscale's hired exit nodes: one tailnet was seen with 562 of them. */
const HIRED_DOMAIN = '.mullvad.ts.net';
const HIRED_TAG = 'tag:mullvad-exit-node';

/** Reads a status (format from the source of 1.98.10 and 1.102.3); undefined if it is invalid. Invalid peers are left out. */
export function statusOf(value: unknown): TailnetStatus | undefined {
  const parsed = statusSchema.safeParse(value);
  if (!parsed.success) return undefined;
  const { Version, BackendState, TUN, Self, Peer, User, MagicDNSSuffix, CurrentTailnet } = parsed.data;
  const suffix = withoutDots(CurrentTailnet?.MagicDNSSuffix || MagicDNSSuffix);
  const peers = Object.values(Peer ?? {}).flatMap((raw) => {
    const peer = peerSchema.safeParse(raw);
    return peer.success ? [nodeOf(peer.data, suffix)] : [];
  });
  const logins = Object.entries(User ?? {}).flatMap(([id, { LoginName }]) =>
    LoginName ? [[id, LoginName] as const] : [],
  );
  return {
    version: Version ?? undefined,
    backendState: BackendState,
    tun: TUN !== false,
    self: Self ? nodeOf(Self, suffix) : undefined,
    peers,
    logins: new Map(logins),
  };
}

function nodeOf(peer: Peer, suffix: string): TailnetNode {
  const dnsName = withoutDots(peer.DNSName);
  const tags = peer.Tags ?? [];
  const foreign = suffix !== '' && dnsName !== '' && !dnsName.toLowerCase().endsWith(`.${suffix.toLowerCase()}`);
  const hired = dnsName.toLowerCase().endsWith(HIRED_DOMAIN) || tags.includes(HIRED_TAG);
  return {
    id: peer.ID,
    hostName: peer.HostName ?? '',
    dnsName,
    os: peer.OS ?? '',
    userId: peer.UserID ?? '',
    addresses: (peer.TailscaleIPs ?? []).filter((address) => isIP(address) !== 0),
    tags,
    online: peer.Online === true,
    expired: peer.Expired === true,
    shared: peer.ShareeNode === true || isSet(peer.AltSharerUserID) || (foreign && !hired),
    exitNodeForHire: hired,
  };
}

const whoisSchema = z.object({
  Node: z.object({
    StableID: z.string().min(1),
    Name: text,
    User: text,
    Tags: texts,
  }),
  UserProfile: z.object({ ID: text, LoginName: text }).nullish(),
  CapMap: z.record(z.string(), z.array(z.unknown()).nullable()).nullish(),
});

/** Reads a whois answer; undefined if it is invalid. */
export function whoisOf(value: unknown): Whois | undefined {
  const parsed = whoisSchema.safeParse(value);
  if (!parsed.success) return undefined;
  const { Node, UserProfile, CapMap } = parsed.data;
  const userId = UserProfile?.ID ?? '';
  return {
    node: {
      id: Node.StableID,
      dnsName: withoutDots(Node.Name),
      tags: Node.Tags ?? [],
      userId: Node.User ?? userId,
    },
    login: UserProfile?.LoginName ?? '',
    userId,
    capabilities: new Map(Object.entries(CapMap ?? {}).map(([name, values]) => [name, values ?? []])),
  };
}

function isSet(id: string | null | undefined): boolean {
  return id !== undefined && id !== null && id !== '' && id !== '0';
}

function withoutDots(name: string | null | undefined): string {
  return (name ?? '').replace(/^\.+|\.+$/g, '');
}
