import type { NetworkInterfaceInfo } from 'node:os';
import { BlockList } from 'node:net';

/** The result of `os.networkInterfaces`. */
export type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

/** `all`: every interface but loopback. */
export type WantedInterfaces = 'all' | readonly string[];

/** One interface in one address family. */
export interface Link {
  /** Changes if the interface is recreated, as far as the system shows that. */
  readonly key: string;
  readonly interfaceName: string;
  readonly family: 'IPv4' | 'IPv6';
  /** Source address. For IPv6 the link-local one if there is one (RFC 6762 section 15), with its `%zone`. */
  readonly address: string;
}

/** A container host has hundreds of interfaces with link-local addresses and no neighbours. */
export const MAX_LINKS = 32;

/** The wanted links, interfaces with an IPv4 address first. */
export function linksOf(interfaces: Interfaces, wanted: WantedInterfaces): readonly Link[] {
  const links: Link[] = [];
  for (const [name, addresses = []] of Object.entries(interfaces)) {
    if (!isWanted(name, addresses, wanted)) continue;
    const four = addresses.find(({ family }) => family === 'IPv4');
    const six = linkLocal(addresses) ?? addresses.find(({ family }) => family === 'IPv6');
    // A recreated interface has another number, which is the scope of its link-local addresses.
    const incarnation = `${linkLocal(addresses)?.scopeid ?? ''} ${addresses[0]?.mac ?? ''}`;
    for (const info of [four, six]) if (info !== undefined) links.push(linkOf(name, info, incarnation));
  }
  const four = new Set(links.filter(({ family }) => family === 'IPv4').map(({ interfaceName }) => interfaceName));
  return links
    .toSorted((one, other) => Number(four.has(other.interfaceName)) - Number(four.has(one.interfaceName)))
    .slice(0, MAX_LINKS);
}

/**
 * Returns the interface on which the sender of a packet is a neighbour. Undefined if the packet came through a router and must be
 * ignored (RFC 6762 section 11). `address` is from node:dgram, with its zone.
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
