import { isIPv6 } from 'node:net';
import type { Duplex } from 'node:stream';

import { badPortReason } from '../../base/bad-ports.ts';
import { systemClock } from '../../base/clock.ts';
import { openSocket, type Dial } from '../../base/dial.ts';
import { within } from '../../base/within.ts';
import { isLinkLocal } from '../../mdns/links.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
import type { Sighting } from './sightings.ts';

/** A neighbour answers within milliseconds; one that is off never does. */
const CONNECT_LIMIT_MS = 10_000;

/** What a sighting offers. Only the address of its packets leads anywhere; everything else labels. */
export function advertisedCandidate(
  source: string,
  { announcement, origin, address, revisedMs }: Sighting,
  dialOn: (interfaceName: string) => Dial,
): Candidate {
  const { kind, port, says } = announcement;
  const hint = repeaterHint(announcement.addresses, address);
  const host = origin.family === 'IPv6' ? `[${address}]` : address;
  return {
    source,
    key: `${kind}/${address}/${port}`,
    endpoint: {
      url: `http://${host}:${port}`,
      route: 'lan',
      // A URL has no place for the interface, without which a link-local address leads nowhere.
      ...(isLinkLocal(address) && { dial: dialOn(origin.interfaceName) }),
    },
    // The host that opencode itself advertises is the same on all machines.
    claims: { ...says, localPort: port, ...(revisedMs !== undefined && { connectedAt: revisedMs }) },
    // Of the LAN: who gets a password is decided by rules that name it.
    trust: { level: 'trusted' },
    ...(hint !== undefined && { hint }),
  };
}

/**
 * For a machine that names its addresses, and not the one that its packets come from. Only a hint: a machine that has got another
 * address meanwhile may name the old one. A packet by IPv6 comes from a link-local address, which others do not replace.
 */
function repeaterHint(addresses: readonly string[], sender: string): string | undefined {
  const alike = addresses.filter((one) => isIPv6(one) === isIPv6(sender) && isLinkLocal(one) === isLinkLocal(sender));
  const [first] = alike;
  if (first === undefined || alike.includes(sender)) return undefined;
  return `an mDNS repeater stands between, since it names ${first} as its address: list it by URL in "instances", or use a tailnet or a relay`;
}

export function noteOn({ announcement: { port }, address }: Sighting): Note[] {
  const reason = badPortReason(port);
  return reason === undefined ? [] : [{ subject: `${address} port ${port}`, reason }];
}

/** Connects to link-local addresses on one interface; always the same function for the same interface. */
export function linkLocalDials(): (interfaceName: string) => Dial {
  const dials = new Map<string, Dial>();
  return (interfaceName) => {
    const known = dials.get(interfaceName);
    if (known !== undefined) return known;
    const dial: Dial = (host, port) => dialOn(interfaceName, host, port);
    dials.set(interfaceName, dial);
    return dial;
  };
}

function dialOn(interfaceName: string, host: string, port: number): Promise<Duplex> {
  const place = `${host}%${interfaceName}`;
  const late = (): Error => new Error(`no connection to ${place} within ${CONNECT_LIMIT_MS} ms`);
  return within({ clock: systemClock, ms: CONNECT_LIMIT_MS, late }, (cut) =>
    openSocket({ host: place, port, family: 6 }, cut),
  );
}
