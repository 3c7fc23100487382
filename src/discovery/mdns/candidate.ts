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
  };
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
