import { EventEmitter } from 'node:events';

import { Bonjour } from 'bonjour-service';

import type { Lan } from './lan.ts';

/** Of multicast-dns 7.2.5, what its one user bonjour-service 1.4.4 keeps to itself. */
interface MulticastDns {
  /** `packet` is decoded. */
  on(event: 'response', listener: (packet: unknown, from: unknown) => void): void;
  query(questions: readonly { readonly name: string; readonly type: 'PTR' }[]): void;
}

/**
 * The LAN as the socket that multicast-dns uses: `on`, `once`, `send` and `close` of node:dgram. Closing it leaves the LAN open.
 */
class LanSocket extends EventEmitter {
  readonly #lan: Lan;
  readonly #pass = (packet: Buffer, from: unknown): void => void this.emit('message', packet, from);

  constructor(lan: Lan) {
    super();
    this.#lan = lan;
    lan.on('message', this.#pass);
  }

  /** Port and address are those of the group. */
  send(
    packet: Uint8Array,
    offset: number,
    length: number,
    _port: number,
    _address: string,
    done: (error: Error | null) => void,
  ): void {
    void this.#send(packet.subarray(offset, offset + length), done);
  }

  close(done: () => void = () => {}): void {
    this.#lan.off('message', this.#pass);
    setImmediate(done);
  }

  async #send(packet: Uint8Array, done: (error: Error | null) => void): Promise<void> {
    await this.#lan.send(packet);
    done(null);
  }
}

/** bonjour-service over a `Lan`, which joins groups, binds and chooses interfaces by itself. Destroying it leaves the LAN open. */
export function bonjourOver(lan: Lan, port: number): Bonjour {
  // Its options go to multicast-dns, whatever their type says.
  const options: object = { socket: new LanSocket(lan), port, bind: false, multicast: false };
  // A packet that could not be sent is told by the link; thrown, it would end the process.
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
