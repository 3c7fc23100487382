import { isIPv6 } from 'node:net';
import type { Duplex } from 'node:stream';

import { badPortReason } from '../../base/urls.ts';
import { systemClock } from '../../base/clock.ts';
import { openSocket, type Dial } from '../../base/dial.ts';
import { within } from '../../base/within.ts';
import { isLinkLocal } from '../../mdns/links.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
import type { Sighting } from './sightings.ts';

/** A neighbour connects within milliseconds; one that is off never does. */
const CONNECT_LIMIT_MS = 10_000;

/** The candidate of one sighting. Only the source address of its packets is used for requests; everything else is a label. */
export function advertisedCandidate(
  source: string,
  { announcement, origin, address, revisedMs }: Sighting,
  dialOn: (interfaceName: string) => Dial,
): Candidate {
  const { kind, port, claims } = announcement;
  const hint = repeaterHint(announcement.addresses, address);
  const host = origin.family === 'IPv6' ? `[${address}]` : address;
  return {
    source,
    key: `${kind}/${address}/${port}`,
    endpoint: {
      url: `http://${host}:${port}`,
      route: 'lan',
      // A link-local address needs its interface, which a URL cannot contain.
      ...(isLinkLocal(address) && { dial: dialOn(origin.interfaceName) }),
    },
    // Without the host that opencode itself advertises, which is the same on all machines.
    claims: { ...claims, localPort: port, ...(revisedMs !== undefined && { connectedAt: revisedMs }) },
    // Passwords still go only to LAN endpoints that a credential rule names exactly.
    trust: { level: 'trusted' },
    ...(hint !== undefined && { hint }),
  };
}

/**
 * Set if the advertised addresses do not include the one that the packets come from. Only a hint: after a change of address, a
 * machine may still advertise the old one. Compares addresses of the same kind, since IPv6 packets come from a link-local address.
 */
function repeaterHint(addresses: readonly string[], sender: string): string | undefined {
  const alike = addresses.filter((one) => isIPv6(one) === isIPv6(sender) && isLinkLocal(one) === isLinkLocal(sender));
  const [first] = alike;
  if (first === undefined || alike.includes(sender)) return undefined;
  return `an mDNS repeater relayed this, since it advertises the address ${first}: list it by URL in "instances", or use a tailnet or a relay`;
}

export function noteOn({ announcement: { port }, address }: Sighting): Note[] {
  const reason = badPortReason(port);
  return reason === undefined ? [] : [{ subject: `${address} port ${port}`, reason }];
}

/** Dials link-local addresses on one interface. The same interface always gives the same function, which is part of an endpoint's identity. */
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
  const scoped = `${host}%${interfaceName}`;
  const late = (): Error => new Error(`no connection to ${scoped} within ${CONNECT_LIMIT_MS} ms`);
  return within({ clock: systemClock, ms: CONNECT_LIMIT_MS, late }, (cut) =>
    openSocket({ host: scoped, port, family: 6 }, cut),
  );
}
