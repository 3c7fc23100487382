import { describe, expect, it } from 'vitest';

import { MAX_OF_ONE_SENDER, MAX_SIGHTINGS, QUERY_EVERY_MS, Sightings } from '../../../src/discovery/mdns/sightings.ts';
import type { Announcement } from '../../../src/mdns/announcements.ts';
import type { Origin } from '../../../src/mdns/lan.ts';

const MINUTE_MS = 60_000;
const isAlwaysNeighbour = (): boolean => true;

function service(port: number, overrides: Partial<Announcement> = {}): Announcement {
  const name = `opencode-${port}._http._tcp.local`;
  return { kind: 'opencode', name, isGoodbye: false, port, claims: {}, addresses: [], ...overrides };
}

function originAt(address: string, interfaceName = 'eth0'): Origin {
  return { address, family: address.includes(':') ? 'IPv6' : 'IPv4', port: 5353, interfaceName };
}

const ONE = originAt('192.168.1.1');
const TWO = originAt('192.168.1.2');
const GOODBYE = { isGoodbye: true } as const;

function listPlaces(
  sightings: Sightings,
  nowMs: number,
  isNeighbour: (origin: Origin) => boolean = isAlwaysNeighbour,
): string[] {
  return sightings.current(nowMs, isNeighbour).map(({ address, announcement }) => `${address}:${announcement.port}`);
}

describe('a service on the LAN', () => {
  it('is kept once for each sender, because all machines use the same names', () => {
    const sightings = new Sightings();
    expect([sightings.add(service(4096), ONE, 0), sightings.add(service(4096), TWO, 0)]).toEqual([true, true]);
    expect(listPlaces(sightings, 0)).toEqual(['192.168.1.1:4096', '192.168.1.2:4096']);
  });

  it('reports a change only if its claims change', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    expect(sightings.add(service(4096), ONE, MINUTE_MS)).toBe(false);
    expect(sightings.add(service(4096, { claims: { name: 'other' } }), ONE, MINUTE_MS)).toBe(true);
  });

  it('is kept after a goodbye, and probed again at most once in ten seconds', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    sightings.add(service(4096), TWO, 0);
    expect(sightings.add(service(4096, GOODBYE), ONE, 1000)).toBe(true);
    expect(sightings.add(service(4096, GOODBYE), ONE, 10_999)).toBe(false);
    expect(sightings.current(10_999, isAlwaysNeighbour).map(({ revisedMs }) => revisedMs)).toEqual([1000, undefined]);
    expect(sightings.add(service(4096, GOODBYE), ONE, 11_000)).toBe(true);
  });

  it('does not change on a goodbye of an unknown service or another name', () => {
    const sightings = new Sightings();
    expect(sightings.add(service(4096, GOODBYE), ONE, 0)).toBe(false);
    expect(listPlaces(sightings, 0)).toEqual([]);
    sightings.add(service(4096), ONE, 0);
    expect(sightings.add(service(4096, { ...GOODBYE, name: 'x' }), ONE, 0)).toBe(false);
  });

  it('is probed again when it returns after a silence', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    expect(sightings.add(service(4096), ONE, 5 * MINUTE_MS)).toBe(true);
    expect(sightings.current(5 * MINUTE_MS, isAlwaysNeighbour)[0]?.revisedMs).toBe(5 * MINUTE_MS);
  });

  it('is dropped if its machine announces only other services, and kept while the machine is silent', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    sightings.add(service(4096), TWO, 0);
    for (let minute = 1; minute <= 4; minute += 1) sightings.add(service(5000), ONE, minute * MINUTE_MS);
    expect(listPlaces(sightings, 4 * MINUTE_MS)).toEqual(['192.168.1.2:4096', '192.168.1.1:5000']);
  });

  it('is dropped after ten unanswered queries, whatever its TTL', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    expect(listPlaces(sightings, 10 * QUERY_EVERY_MS)).toHaveLength(1);
    expect(listPlaces(sightings, 10 * QUERY_EVERY_MS + 1)).toEqual([]);
  });

  it('is dropped if its sender is no longer a neighbour', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), ONE, 0);
    expect(listPlaces(sightings, 0, () => false)).toEqual([]);
    expect(listPlaces(sightings, 0)).toEqual([]);
  });

  it('is dropped with a note beyond the limit for a machine or the limit for all machines', () => {
    const sightings = new Sightings();
    for (let port = 1; port <= 1000; port += 1) sightings.add(service(port), ONE, 0);
    expect(listPlaces(sightings, 0)).toHaveLength(MAX_OF_ONE_SENDER);
    for (let index = 0; index < 100_000; index += 1) {
      const address = `10.${index % 250}.${Math.floor(index / 250) % 250}.1`;
      sightings.add(service(4096), originAt(address), 0);
    }
    expect(listPlaces(sightings, 0)).toHaveLength(MAX_SIGHTINGS);
    expect(sightings.notes.length).toBeLessThanOrEqual(10);
    expect(sightings.notes[0]?.subject).toBe('192.168.1.1');
    // The notes are removed with the services.
    expect(listPlaces(sightings, 11 * MINUTE_MS)).toEqual([]);
    expect(sightings.notes).toEqual([]);
  });
});

describe('one machine in both address families', () => {
  const six = originAt('fe80::1%eth0');
  const bothAddresses = { addresses: ['192.168.1.1', 'fe80::1'] };

  function placesOf(four: Partial<Announcement>, sixth: Partial<Announcement>, origin: Origin = six): string[] {
    const sightings = new Sightings();
    sightings.add(service(4096, sixth), origin, 0);
    sightings.add(service(4096, four), ONE, 0);
    return listPlaces(sightings, 0);
  }

  it('is listed by IPv4 alone', () => {
    expect(placesOf(bothAddresses, bothAddresses)).toEqual(['192.168.1.1:4096']);
  });

  it.each([
    { name: 'only the IPv4 packet names both addresses', four: bothAddresses, sixth: {}, origin: six },
    { name: 'only the IPv6 packet names both addresses', four: {}, sixth: bothAddresses, origin: six },
    {
      name: 'the packets name different services',
      four: { ...bothAddresses, name: 'other' },
      sixth: bothAddresses,
      origin: six,
    },
    {
      name: 'the packets came through different interfaces',
      four: bothAddresses,
      sixth: bothAddresses,
      origin: originAt('fe80::1%eth1', 'eth1'),
    },
  ])('is listed twice if $name', ({ four, sixth, origin }) => {
    expect(placesOf(four, sixth, origin)).toHaveLength(2);
  });
});

describe('a link-local address', () => {
  it('belongs to its first interface until it is silent there', () => {
    const sightings = new Sightings();
    sightings.add(service(4096), originAt('fe80::1%eth0'), 0);
    expect(sightings.add(service(4096), originAt('fe80::1%eth1', 'eth1'), 1000)).toBe(false);
    expect(sightings.current(1000, isAlwaysNeighbour)[0]?.origin.interfaceName).toBe('eth0');
    expect(sightings.add(service(4096), originAt('fe80::1%eth1', 'eth1'), 4 * MINUTE_MS)).toBe(true);
    expect(sightings.current(4 * MINUTE_MS, isAlwaysNeighbour)[0]?.origin.interfaceName).toBe('eth1');
  });
});
