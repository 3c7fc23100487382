import { EventEmitter } from 'node:events';

import { Bonjour } from 'bonjour-service';

import type { Lan, Origin } from './lan.ts';

/** multicast-dns 7.2.5, as used inside bonjour-service 1.4.4. */
interface MulticastDns {
  /** `packet` is decoded, not validated. */
  on(event: 'response', listener: (packet: unknown, from: Origin) => void): void;
  query(questions: readonly { readonly name: string; readonly type: 'PTR' }[]): void;
}

/** The LAN as the dgram socket that multicast-dns expects: `on`, `once`, `send` and `close`. Closing it leaves the LAN open. */
function socketOver(lan: Lan): object {
  const socket = new EventEmitter();
  const pass = (packet: Buffer, from: Origin): void => void socket.emit('message', packet, from);
  lan.on('message', pass);
  /** Ignores port and address: always those of the group. */
  const send = async (...[packet, offset, length, , , done]: SendArguments): Promise<void> => {
    await lan.send(packet.subarray(offset, offset + length));
    done(null);
  };
  const close = (done: () => void = () => {}): void => {
    lan.off('message', pass);
    setImmediate(done);
  };
  return Object.assign(socket, { send, close });
}

type SendArguments = [
  packet: Uint8Array,
  offset: number,
  length: number,
  port: number,
  address: string,
  done: (error: Error | null) => void,
];

/** bonjour-service over a `Lan`, which binds, joins groups and chooses interfaces. Destroying it leaves the LAN open. */
export function bonjourOver(lan: Lan, port: number): Bonjour {
  // bonjour-service passes its options to multicast-dns, despite their type.
  const options: object = { socket: socketOver(lan), port, bind: false, multicast: false };
  // `Sender.problem` reports failed sends; the default error callback throws.
  return new Bonjour(options, () => {});
}

/**
 * Gives access to the packets. The `Browser` of bonjour-service keeps one service for each name (here all machines use the same
 * names), notices no new address, and drops nothing.
 */
export function multicastOf(bonjour: Bonjour): MulticastDns {
  const { server } = bonjour as unknown as { readonly server: { readonly mdns: MulticastDns } };
  return server.mdns;
}
