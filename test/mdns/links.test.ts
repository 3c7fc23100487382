import type { NetworkInterfaceInfo } from 'node:os';
import { describe, expect, it } from 'vitest';

import { type Interfaces, linksOf, MAX_LINKS, neighbourhood } from '../../src/mdns/links.ts';

function ipv4(address: string, bits = 24, internal = false): NetworkInterfaceInfo {
  return { address, cidr: `${address}/${bits}`, family: 'IPv4', internal, mac: '02:00:00:00:00:01', netmask: '' };
}

function ipv6(address: string, scopeid = 2, bits = 64): NetworkInterfaceInfo {
  const common = { internal: false, mac: '02:00:00:00:00:01', netmask: '' };
  return { address, cidr: `${address}/${bits}`, family: 'IPv6', scopeid, ...common };
}

const MACHINE: Interfaces = {
  lo: [ipv4('127.0.0.1', 8, true)],
  docker0: [ipv6('fe80::d')],
  eth0: [ipv4('192.168.1.5'), ipv4('192.168.9.5'), ipv6('2001:db8::5'), ipv6('fe80::5', 3)],
  wlan0: [ipv6('fd00::7')],
};

function linkNames(interfaces: Interfaces, wanted: 'all' | readonly string[]): string[] {
  return linksOf(interfaces, wanted).map(({ interfaceName, address }) => `${interfaceName} ${address}`);
}

describe('the links of a machine', () => {
  it('are one for each interface and family, with IPv4 interfaces first, without loopback', () => {
    expect(linkNames(MACHINE, 'all')).toEqual([
      'eth0 192.168.1.5',
      'eth0 fe80::5%eth0',
      'docker0 fe80::d%docker0',
      'wlan0 fd00::7',
    ]);
  });

  it('are those of the named interfaces that exist, including loopback', () => {
    expect(linkNames(MACHINE, ['lo', 'wlan0', 'eth7'])).toEqual(['lo 127.0.0.1', 'wlan0 fd00::7']);
    expect(linkNames(MACHINE, [])).toEqual([]);
  });

  it('get new keys if the interface is recreated', () => {
    const keys = (scopeid: number): string[] =>
      linksOf({ eth0: [ipv4('192.168.1.5'), ipv6('fe80::5', scopeid)] }, 'all').map(({ key }) => key);
    expect(keys(4)).toEqual(keys(4));
    expect(keys(4).filter((key) => keys(5).includes(key))).toEqual([]);
  });

  it('are bounded on a host of containers', () => {
    const veths = Array.from({ length: 300 }, (_, index) => [`veth${index}`, [ipv6(`fe80::${index + 1}`)]] as const);
    const links = linkNames({ ...Object.fromEntries(veths), eth0: [ipv4('192.168.1.5')] }, 'all');
    expect([links.length, links[0]]).toEqual([MAX_LINKS, 'eth0 192.168.1.5']);
  });
});

describe('a sender', () => {
  const interfaceOf = neighbourhood(MACHINE, linksOf(MACHINE, ['eth0', 'wlan0']));

  it.each([
    { name: 'in the subnet', address: '192.168.1.77', family: 'IPv4', on: 'eth0' },
    { name: 'in the other subnet of the interface', address: '192.168.9.1', family: 'IPv4', on: 'eth0' },
    { name: 'behind a router', address: '192.168.2.1', family: 'IPv4', on: undefined },
    { name: 'on the internet', address: '8.8.8.8', family: 'IPv4', on: undefined },
    { name: 'on loopback', address: '127.0.0.1', family: 'IPv4', on: undefined },
    { name: 'with a link-local address', address: 'fe80::77%eth0', family: 'IPv6', on: 'eth0' },
    { name: 'with a link-local address elsewhere', address: 'fe80::77%docker0', family: 'IPv6', on: undefined },
    { name: 'in the prefix', address: 'fd00::8', family: 'IPv6', on: 'wlan0' },
    { name: 'in another prefix', address: 'fd01::8', family: 'IPv6', on: undefined },
  ] as const)('$name is assigned to the interface $on', ({ address, family, on }) => {
    expect(interfaceOf(address, family)).toBe(on);
  });
});
