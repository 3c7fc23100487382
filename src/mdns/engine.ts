import { EventEmitter } from 'node:events';

import { Bonjour } from 'bonjour-service';

import type { Lan } from './lan.ts';

/** Of multicast-dns 7.2.5, what its one user bonjour-service 1.4.4 keeps to itself. */
interface MulticastDns {
  /** `packet` is decoded. */
  on(event: 'response', listener: (packet: unknown, from: unknown) => void): void;
  query(questions: readonly { readonly name: string; readonly type: 'PTR' }[]): void;
}

/** The LAN as the socket that multicast-dns uses: `on`, `once`, `send` and `close` of node:dgram. Closing it leaves the LAN open. */
function socketOver(lan: Lan): object {
  const socket = new EventEmitter();
  const pass = (packet: Buffer, from: unknown): void => void socket.emit('message', packet, from);
  lan.on('message', pass);
  /** Port and address are those of the group. */
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

/** bonjour-service over a `Lan`, which joins groups, binds and chooses interfaces by itself. Destroying it leaves the LAN open. */
export function bonjourOver(lan: Lan, port: number): Bonjour {
  // Its options go to multicast-dns, whatever their type says.
  const options: object = { socket: socketOver(lan), port, bind: false, multicast: false };
  // The link reports a packet that could not be sent; an exception would end the process.
  return new Bonjour(options, () => {});
}

/**
 * Where bonjour-service gets its packets. Its own `Browser` keeps one service for each name, which all machines have in
 * common here, notices no new address, and forgets nothing.
 */
export function multicastOf(bonjour: Bonjour): MulticastDns {
  const { server } = bonjour as unknown as { readonly server: { readonly mdns: MulticastDns } };
  return server.mdns;
}
