import type { NetworkInterfaceInfo } from 'node:os';
import { BlockList } from 'node:net';

/** What `os.networkInterfaces` gives. */
export type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

/** `all`: every interface but loopback; else those of these names. */
export type WantedInterfaces = 'all' | readonly string[];

/** One interface in one address family: what a multicast packet is sent from. */
export interface Link {
  /** Another key is another link, a recreated interface included if the system shows that. */
  readonly key: string;
  readonly interfaceName: string;
  readonly family: 'IPv4' | 'IPv6';
  /** To send from. Of IPv6 the link-local one where there is one, as RFC 6762 section 15 has it, with its `%zone`. */
  readonly address: string;
}

/** A host of containers has hundreds of interfaces, each with a link-local address: more sockets than these find nobody. */
export const MAX_LINKS = 32;

/** The links of `interfaces` that are wanted, those with an IPv4 address first. */
export function linksOf(interfaces: Interfaces, wanted: WantedInterfaces): readonly Link[] {
  const links: Link[] = [];
  for (const [name, addresses = []] of Object.entries(interfaces)) {
    if (!isWanted(name, addresses, wanted)) continue;
    const four = addresses.find(({ family }) => family === 'IPv4');
    const six = linkLocal(addresses) ?? addresses.find(({ family }) => family === 'IPv6');
    // A recreated interface has another number, and its link-local addresses carry that.
    const incarnation = `${linkLocal(addresses)?.scopeid ?? ''} ${addresses[0]?.mac ?? ''}`;
    for (const info of [four, six]) if (info !== undefined) links.push(linkOf(name, info, incarnation));
  }
  const four = new Set(links.filter(({ family }) => family === 'IPv4').map(({ interfaceName }) => interfaceName));
  return links
    .toSorted((one, other) => Number(four.has(other.interfaceName)) - Number(four.has(one.interfaceName)))
    .slice(0, MAX_LINKS);
}

/**
 * Tells on which interface the sender of a packet is a neighbour; undefined for one that is not, whose packet came through a
 * router and is to be ignored (RFC 6762 section 11). `address` as node:dgram gives it, with its zone.
 */
export function neighbourhood(
  interfaces: Interfaces,
  links: readonly Link[],
): (address: string, family: 'IPv4' | 'IPv6') => string | undefined {
  const names = new Set(links.map(({ interfaceName }) => interfaceName));
  const nets = [...names].map((name) => ({ name, block: subnetsOf(interfaces[name] ?? []) }));
  return (address, family) => {
    const [bare = '', zone] = address.split('%', 2);
    if (family === 'IPv6' && zone !== undefined) return names.has(zone) ? zone : undefined;
    return nets.find(({ block }) => block.check(bare, family === 'IPv4' ? 'ipv4' : 'ipv6'))?.name;
  };
}

function isWanted(name: string, addresses: readonly NetworkInterfaceInfo[], wanted: WantedInterfaces): boolean {
  return wanted === 'all' ? !addresses.some(({ internal }) => internal) : wanted.includes(name);
}

function linkLocal(addresses: readonly NetworkInterfaceInfo[]): NetworkInterfaceInfo | undefined {
  return addresses.find(({ family, address }) => family === 'IPv6' && isLinkLocal(address));
}

/** fe80::/10 */
export function isLinkLocal(address: string): boolean {
  return /^fe[89ab][0-9a-f]:/i.test(address);
}

function linkOf(interfaceName: string, { family, address }: NetworkInterfaceInfo, incarnation: string): Link {
  const zoned = isLinkLocal(address) ? `${address}%${interfaceName}` : address;
  return { key: [interfaceName, family, address, incarnation].join(' '), interfaceName, family, address: zoned };
}

function subnetsOf(addresses: readonly NetworkInterfaceInfo[]): BlockList {
  const block = new BlockList();
  for (const { family, address, cidr } of addresses) {
    const bits = Number(cidr?.split('/')[1] ?? (family === 'IPv4' ? 32 : 128));
    block.addSubnet(address, bits, family === 'IPv4' ? 'ipv4' : 'ipv6');
  }
  return block;
}
