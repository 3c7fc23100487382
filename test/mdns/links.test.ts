import type { NetworkInterfaceInfo } from 'node:os';
import { describe, expect, it } from 'vitest';

import { type Interfaces, linksOf, MAX_LINKS, neighbourhood } from '../../src/mdns/links.ts';

function four(address: string, bits = 24, internal = false): NetworkInterfaceInfo {
  return { address, cidr: `${address}/${bits}`, family: 'IPv4', internal, mac: '02:00:00:00:00:01', netmask: '' };
}

function six(address: string, scopeid = 2, bits = 64): NetworkInterfaceInfo {
  const rest = { internal: false, mac: '02:00:00:00:00:01', netmask: '' };
  return { address, cidr: `${address}/${bits}`, family: 'IPv6', scopeid, ...rest };
}

const MACHINE: Interfaces = {
  lo: [four('127.0.0.1', 8, true)],
  docker0: [six('fe80::d')],
  eth0: [four('192.168.1.5'), four('192.168.9.5'), six('2001:db8::5'), six('fe80::5', 3)],
  wlan0: [six('fd00::7')],
};

function shown(interfaces: Interfaces, wanted: 'all' | readonly string[]): string[] {
  return linksOf(interfaces, wanted).map(({ interfaceName, address }) => `${interfaceName} ${address}`);
}

describe('the links of a machine', () => {
  it('are one for each interface and family, with IPv4 interfaces first, without loopback', () => {
    expect(shown(MACHINE, 'all')).toEqual([
      'eth0 192.168.1.5',
      'eth0 fe80::5%eth0',
      'docker0 fe80::d%docker0',
      'wlan0 fd00::7',
    ]);
  });

  it('are of the named interfaces that exist, including loopback', () => {
    expect(shown(MACHINE, ['lo', 'wlan0', 'eth7'])).toEqual(['lo 127.0.0.1', 'wlan0 fd00::7']);
    expect(shown(MACHINE, [])).toEqual([]);
  });

  it('change if the interface is recreated', () => {
    const keys = (scopeid: number): string[] =>
      linksOf({ eth0: [four('192.168.1.5'), six('fe80::5', scopeid)] }, 'all').map(({ key }) => key);
    expect(keys(4)).toEqual(keys(4));
    expect(keys(4).filter((key) => keys(5).includes(key))).toEqual([]);
  });

  it('are bounded on a host of containers', () => {
    const veths = Array.from({ length: 300 }, (_, index) => [`veth${index}`, [six(`fe80::${index + 1}`)]] as const);
    const links = shown({ ...Object.fromEntries(veths), eth0: [four('192.168.1.5')] }, 'all');
    expect([links.length, links[0]]).toEqual([MAX_LINKS, 'eth0 192.168.1.5']);
  });
});

describe('a sender', () => {
  const interfaceOf = neighbourhood(MACHINE, linksOf(MACHINE, ['eth0', 'wlan0']));

  it.each([
    { name: 'in the subnet', address: '192.168.1.77', family: 'IPv4', on: 'eth0' },
    { name: 'in the other subnet of the interface', address: '192.168.9.1', family: 'IPv4', on: 'eth0' },
    { name: 'behind a router', address: '192.168.2.1', family: 'IPv4', on: undefined },
    { name: 'anywhere', address: '8.8.8.8', family: 'IPv4', on: undefined },
    { name: 'on loopback', address: '127.0.0.1', family: 'IPv4', on: undefined },
    { name: 'with a link-local address', address: 'fe80::77%eth0', family: 'IPv6', on: 'eth0' },
    { name: 'with a link-local address elsewhere', address: 'fe80::77%docker0', family: 'IPv6', on: undefined },
    { name: 'in the prefix', address: 'fd00::8', family: 'IPv6', on: 'wlan0' },
    { name: 'in another prefix', address: 'fd01::8', family: 'IPv6', on: undefined },
  ] as const)('$name is a neighbour on $on', ({ address, family, on }) => {
    expect(interfaceOf(address, family)).toBe(on);
  });
});
