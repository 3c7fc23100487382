import { describe, expect, it } from 'vitest';

import { advertisedCandidate, linkLocalDials, noteOn } from '../../../src/discovery/mdns/candidate.ts';
import type { Sighting } from '../../../src/discovery/mdns/sightings.ts';

function sighting(address: string, overrides: Partial<Sighting> = {}): Sighting {
  return {
    announcement: {
      kind: 'opencode',
      name: 'opencode-4096._http._tcp.local',
      isGoodbye: false,
      port: 4096,
      claims: {},
      addresses: ['10.0.0.99'],
    },
    origin: { address, family: address.includes(':') ? 'IPv6' : 'IPv4', port: 5353, interfaceName: 'eth0' },
    address,
    revisedMs: undefined,
    ...overrides,
  };
}

describe('the candidate of a sighting', () => {
  const dialOn = linkLocalDials();

  it("uses the sender's address, not one from the packet, and the time of a goodbye or return", () => {
    expect(advertisedCandidate('mdns', sighting('192.168.1.7', { revisedMs: 7 }), dialOn)).toEqual({
      source: 'mdns',
      key: 'opencode/192.168.1.7/4096',
      endpoint: { url: 'http://192.168.1.7:4096', route: 'lan' },
      claims: { localPort: 4096, connectedAt: 7 },
      trust: { level: 'trusted' },
      hint: 'an mDNS repeater relayed this, since it advertises the address 10.0.0.99: list it by URL in "instances", or use a tailnet or a relay',
    });
  });

  it.each([
    ['advertises its own address', '192.168.1.7', ['10.0.0.9', '192.168.1.7'], false],
    ['advertises no address', '192.168.1.7', [], false],
    ['advertises only other addresses', '192.168.1.7', ['10.0.0.9', 'fe80::7'], true],
    ['sends by IPv6 and advertises no link-local address', 'fe80::7', ['10.0.0.9', 'fd00::7'], false],
    ['sends by IPv6 and advertises another link-local address', 'fe80::7', ['fe80::8'], true],
  ])('has the right repeater hint if the sender %s', (_, address, addresses, hasHint) => {
    const { announcement, ...rest } = sighting(address);
    const { hint } = advertisedCandidate('mdns', { ...rest, announcement: { ...announcement, addresses } }, dialOn);
    expect(hint !== undefined).toBe(hasHint);
  });

  it('dials a link-local address on its interface, with one function for each interface', () => {
    const { endpoint } = advertisedCandidate('mdns', sighting('fe80::7'), dialOn);
    expect(endpoint).toEqual({ url: 'http://[fe80::7]:4096', route: 'lan', dial: dialOn('eth0') });
    expect(dialOn('eth1')).not.toBe(dialOn('eth0'));
    expect(advertisedCandidate('mdns', sighting('fd00::7'), dialOn).endpoint).toEqual({
      url: 'http://[fd00::7]:4096',
      route: 'lan',
    });
  });

  it('has a note if fetch refuses the advertised port', () => {
    const { announcement } = sighting('192.168.1.7');
    expect(noteOn(sighting('192.168.1.7', { announcement: { ...announcement, port: 6000 } }))).toMatchObject([
      { subject: '192.168.1.7 port 6000' },
    ]);
    expect(noteOn(sighting('192.168.1.7'))).toEqual([]);
  });
});
