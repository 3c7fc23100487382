import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';

import { errorCode } from '../base/errors.ts';
import type { Link } from './links.ts';

/** The multicast groups of mDNS. */
const GROUPS = { IPv4: '224.0.0.251', IPv6: 'ff02::fb' } as const;

/** RFC 6762 section 11. */
const TTL = 255;

/**
 * Receives for one address family on all interfaces. Bound to the wildcard address, because on Linux a socket bound to a specific
 * one receives no multicast. One is enough: Linux delivers each packet to every socket of the group.
 */
export class PacketReceiver {
  readonly #family: Link['family'];
  readonly #socket: Socket;
  readonly ready: Promise<void>;

  constructor(family: Link['family'], port: number, onPacket: (packet: Buffer, from: RemoteInfo) => void) {
    this.#family = family;
    this.#socket = socketOf(family);
    this.#socket.on('message', onPacket);
    this.ready = bound(this.#socket, port, family === 'IPv4' ? '0.0.0.0' : '::');
  }

  /** True if it had not joined yet, or the interface was recreated. Throws if the interface is gone or refuses. */
  join(link: Link): boolean {
    try {
      this.#socket.addMembership(GROUPS[this.#family], interfaceOf(link));
      return true;
    } catch (error) {
      if (errorCode(error) === 'EADDRINUSE') return false;
      throw error;
    }
  }

  leave(link: Link): void {
    try {
      this.#socket.dropMembership(GROUPS[this.#family], interfaceOf(link));
    } catch {
      // The interface is gone, and the membership with it.
    }
  }

  close(): void {
    this.#socket.close();
  }
}

/** Sends on one link. Bound to its address, so that it does not receive multicast a second time. */
export class Sender {
  readonly link: Link;
  readonly ready: Promise<void>;
  /** Why the last packet could not be sent. */
  problem: string | undefined;
  readonly #socket: Socket;
  readonly #port: number;

  constructor(link: Link, port: number) {
    this.link = link;
    this.#port = port;
    this.#socket = socketOf(link.family);
    this.ready = bound(this.#socket, port, link.address).then(() => {
      if (link.family === 'IPv4') this.#socket.setMulticastTTL(TTL);
      this.#socket.setMulticastLoopback(true);
      this.renew();
    });
  }

  /** The system binds to the interface's number, which changes if it is recreated. Throws if it is gone. */
  renew(): void {
    this.#socket.setMulticastInterface(interfaceOf(this.link));
  }

  send(packet: Uint8Array): Promise<void> {
    const group = GROUPS[this.link.family];
    const address = this.link.family === 'IPv6' ? `${group}%${this.link.interfaceName}` : group;
    return new Promise((resolve) => {
      const done = (error: Error | null): void => {
        this.problem = error === null ? undefined : error.message;
        resolve();
      };
      try {
        this.#socket.send(packet, this.#port, address, done);
      } catch (error) {
        // Closed meanwhile.
        done(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  close(): void {
    this.#socket.close();
  }
}

/** Other programs of the machine use the port too. */
function socketOf(family: Link['family']): Socket {
  return createSocket({ type: family === 'IPv4' ? 'udp4' : 'udp6', reuseAddr: true, ipv6Only: family === 'IPv6' });
}

/** Rejects if it cannot be bound. Later errors concern single packets, and `send` gets them. */
function bound(socket: Socket, port: number, address: string): Promise<void> {
  const ready = new Promise<void>((resolve, reject) => {
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('closed')));
    socket.bind({ port, address }, () => resolve());
  });
  // The caller may not be waiting any more.
  ready.catch(() => {});
  return ready;
}

/** How node:dgram names an interface: by its address in IPv4, by its name in IPv6. */
function interfaceOf({ family, address, interfaceName }: Link): string {
  return family === 'IPv4' ? address : `::%${interfaceName}`;
}
