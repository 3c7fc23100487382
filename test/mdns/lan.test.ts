import { createSocket, type Socket } from 'node:dgram';
import { networkInterfaces, type NetworkInterfaceInfo } from 'node:os';
import { describe, expect, it, onTestFinished } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Logger } from '../../src/base/log.ts';
import { silentLogger } from '../../src/base/log.ts';
import { LanView } from '../../src/discovery/mdns/lan-view.ts';
import { QUERY_EVERY_MS } from '../../src/discovery/mdns/sightings.ts';
import { type Announcement, announcementsIn } from '../../src/mdns/announcements.ts';
import { bonjourOver, multicastOf } from '../../src/mdns/engine.ts';
import { Lan, LINKS_EVERY_MS, type Origin } from '../../src/mdns/lan.ts';
import type { Interfaces } from '../../src/mdns/links.ts';
import { Publisher } from '../../src/mdns/publisher.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { announcement } from '../rig/network/mdns-packets.ts';
import { freePort } from '../rig/ports.ts';
import { recordedPackets } from '../rig/network/recorded-packets.ts';
import { until } from '../rig/wait.ts';

/** The tests use multicast on loopback and a free port, so that nothing leaves the machine. */
const [LOOPBACK = 'lo', ADDRESSES = []] =
  Object.entries(networkInterfaces()).find(([, found]) => found?.some(({ internal }) => internal)) ?? [];
const IPV4_ADDRESSES = ADDRESSES.filter(({ family }) => family === 'IPv4');
const COMMON = { interfaces: [LOOPBACK], clock: systemClock, logger: silentLogger };
const PACKET = announcement({ label: 'opencode-4096', type: '_http._tcp.local', port: 4096 });

describe('the LAN as one socket', () => {
  /** Opens a socket of a neighbour that sends packets, and records the packets that it receives. */
  async function openNeighbour(port: number): Promise<{ readonly socket: Socket; readonly received: Buffer[] }> {
    const socket = createSocket({ type: 'udp4', reuseAddr: true });
    const received: Buffer[] = [];
    socket.on('message', (packet) => received.push(packet));
    await new Promise<void>((resolve) => socket.bind(port, '0.0.0.0', resolve));
    socket.addMembership('224.0.0.251', '127.0.0.1');
    socket.setMulticastInterface('127.0.0.1');
    onTestFinished(() => void socket.close());
    return { socket, received };
  }

  async function openLan(port: number, more: Partial<ConstructorParameters<typeof Lan>[0]> = {}): Promise<Lan> {
    const lan = new Lan({ ...COMMON, wanted: 'responses', port, ...more });
    onTestFinished(() => lan.close());
    await lan.open();
    return lan;
  }

  async function listenOn(port: number, listener: (announced: Announcement, by: Origin) => unknown): Promise<void> {
    const bonjour = bonjourOver(await openLan(port), port);
    onTestFinished(() => bonjour.destroy());
    multicastOf(bonjour).on('response', (packet, from) => {
      for (const announced of announcementsIn(packet)) listener(announced, from);
    });
  }

  it('survives a listener that throws, and logs its first error only', async () => {
    const port = await freePort();
    const lines: string[] = [];
    const logger: Logger = { log: (level, message, fields) => lines.push(`${level} ${message} ${fields?.['reason']}`) };
    const lan = await openLan(port, { logger });
    let calls = 0;
    lan.on('message', () => {
      calls += 1;
      throw new Error('a bug');
    });
    const { socket } = await openNeighbour(port);
    await until('three packets', () => {
      socket.send(PACKET, port, '224.0.0.251');
      return calls >= 3;
    });
    expect(lines).toEqual(['warn an mDNS packet could not be handled; later ones are not logged a bug']);
  });

  it('reports an unusable address, and uses the others', async () => {
    const port = await freePort();
    // The address is of a documentation network, which no machine has.
    const unusable: NetworkInterfaceInfo = {
      ...IPV4_ADDRESSES[0]!,
      address: '192.0.2.1',
      cidr: '192.0.2.1/24',
      internal: false,
    };
    // Interfaces have such names on Windows.
    const name = 'Ethernet 2';
    const withoutLoopback = await openLan(port, { interfaces: 'all', readInterfaces: () => ({ [name]: [unusable] }) });
    expect(withoutLoopback.problem).toMatch(/^no multicast on this machine: Ethernet 2: .*(?:ENODEV|EADDRNOTAVAIL)/);
    const withLoopback = await openLan(port, {
      interfaces: [name, LOOPBACK],
      readInterfaces: () => ({ [name]: [unusable], [LOOPBACK]: IPV4_ADDRESSES }),
    });
    expect(withLoopback.problem).toBeUndefined();
    expect(withLoopback.unusable).toMatchObject([{ link: 'Ethernet 2 IPv4 192.0.2.1' }]);
  });

  it('reports unreadable interfaces, and continues once they are readable', async () => {
    const clock = new ManualClock();
    let isForbidden = true;
    const readInterfaces = (): Interfaces => {
      if (isForbidden) throw new Error('not allowed');
      return { [LOOPBACK]: IPV4_ADDRESSES };
    };
    const lan = await openLan(await freePort(), { clock, readInterfaces });
    expect(lan.problem).toBe('no multicast on this machine: the network interfaces cannot be read: not allowed');
    await clock.advance(LINKS_EVERY_MS);
    lan.on('links', () => {
      throw new Error('a bug');
    });
    isForbidden = false;
    await until('the links', async () => {
      await clock.advance(LINKS_EVERY_MS);
      return lan.problem === undefined;
    });
  });

  it('follows changes of interfaces', async () => {
    const port = await freePort();
    const clock = new ManualClock();
    let interfaces: Interfaces = {};
    let changes = 0;
    const lan = await openLan(port, { clock, readInterfaces: () => interfaces });
    lan.on('links', () => (changes += 1));
    expect(lan.problem).toBe(`no multicast on this machine: no interface ${LOOPBACK} has an address`);
    const advanceUntil = async (isDone: () => boolean): Promise<void> => {
      await until('the change to be seen', async () => {
        await clock.advance(LINKS_EVERY_MS);
        return isDone();
      });
    };
    interfaces = { [LOOPBACK]: IPV4_ADDRESSES };
    await advanceUntil(() => changes === 1);
    expect([lan.problem, lan.interfaceOf('127.0.0.1', 'IPv4')]).toEqual([undefined, LOOPBACK]);
    await advanceUntil(() => true);
    interfaces = {};
    await advanceUntil(() => changes === 2);
    expect([lan.problem === undefined, lan.interfaceOf('127.0.0.1', 'IPv4')]).toEqual([false, undefined]);
  });

  it('stays open when its bonjour is destroyed', async () => {
    const lan = await openLan(await freePort());
    bonjourOver(lan, 1).destroy();
    expect([lan.listenerCount('message'), lan.problem]).toEqual([0, undefined]);
  });

  it('is queried immediately, after one and four seconds, and then every minute', async () => {
    const port = await freePort();
    const { received } = await openNeighbour(port);
    const clock = new ManualClock();
    const view = new LanView({ ...COMMON, clock, port, source: 'mdns', onChange: () => {} });
    onTestFinished(() => view.close());
    await view.open();
    const untilQueries = (count: number): Promise<unknown> =>
      until(`${count} queries`, () => received.length === count);
    await untilQueries(1);
    await clock.advance(1000);
    await untilQueries(2);
    await clock.advance(3000);
    await untilQueries(3);
    await clock.advance(3 * QUERY_EVERY_MS);
    await untilQueries(6);
    expect(received.every((packet) => packet.includes('_opencode-mcp') && packet.includes('_http'))).toBe(true);
  });

  it('reads recorded packets of opencode and of opencode-mcp', async () => {
    const port = await freePort();
    const announced: string[] = [];
    await listenOn(port, ({ kind, isGoodbye, port: at, claims, addresses }) =>
      announced.push([kind, isGoodbye ? 'bye' : 'hello', at, claims.name, addresses].join(' ')),
    );
    // Responses are accepted only from the mDNS port.
    const { socket } = await openNeighbour(port);
    for (const packet of recordedPackets()) socket.send(packet, port, '224.0.0.251');
    await until('three announcements', () => announced.length === 3);
    expect(announced).toEqual([
      'opencode hello 4096  192.168.1.11',
      'connected hello 4651 one-project 192.168.1.11',
      'connected bye 4651 one-project 192.168.1.11',
    ]);
  });

  it('receives an announcement and its goodbye', async () => {
    const port = await freePort();
    const announced: string[] = [];
    await listenOn(port, ({ kind, isGoodbye, claims }, { address }) =>
      announced.push(`${kind} ${isGoodbye ? 'bye' : 'hello'} ${claims.id} ${address}`),
    );
    const publisher = new Publisher({ ...COMMON, port, instance: { id: 'abc' }, listensOn: 4096 });
    await publisher.open();
    await until('its announcement', () => announced.includes('connected hello abc 127.0.0.1'));
    await Promise.all([publisher.close(), publisher.close()]);
    await until('its goodbye', () => announced.includes('connected bye abc 127.0.0.1'));
  });
});
