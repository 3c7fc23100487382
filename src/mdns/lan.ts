import type { RemoteInfo } from 'node:dgram';
import { EventEmitter } from 'node:events';
import { networkInterfaces } from 'node:os';

import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { singleLine } from '../base/plain-text.ts';
import { Intake, type Wanted } from './intake.ts';
import { PacketReceiver, Sender } from './link-sockets.ts';
import { type Interfaces, type Link, linksOf, neighbourhood, type WantedInterfaces } from './links.ts';
import { reasonOf } from '../base/errors.ts';

export const MDNS_PORT = 5353;

export interface LanOptions {
  readonly interfaces: WantedInterfaces;
  readonly wanted: Wanted;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default: 5353. */
  readonly port?: number;
  /** Default: those of this machine. */
  readonly readInterfaces?: () => Interfaces;
}

/** The source of a packet. */
export interface Origin {
  /** With its zone, if link-local. */
  readonly address: string;
  readonly family: 'IPv4' | 'IPv6';
  readonly port: number;
  /** The interface on which the sender is a neighbour. */
  readonly interfaceName: string;
}

/** Polling interval for interfaces, since Node has no event. Wi-Fi takes longer to connect. */
export const LINKS_EVERY_MS = 2000;

const MAX_REASON_CHARS = 200;

/**
 * The LAN as one UDP socket: sends on every interface in both families, and filters what it receives. multicast-dns 7.2.5, used by
 * bonjour-service, would itself send on one interface only, end the process if a socket cannot be bound or a listener throws, and
 * accept every packet.
 *
 * Emits `message` (a packet and its `Origin`), and `links` after links were added or removed.
 */
export class Lan extends EventEmitter {
  readonly #options: LanOptions;
  readonly #port: number;
  readonly #intake: Intake;
  readonly #receivers = new Map<Link['family'], PacketReceiver>();
  readonly #senders = new Map<string, Sender>();
  readonly #root = new AbortController();
  #neighbour: ReturnType<typeof neighbourhood> = () => undefined;
  /** Existing links that cannot be used, by their keys. */
  readonly #refused = new Map<string, { readonly link: Link; readonly reason: string }>();
  #unreadable: string | undefined;
  #hasMishandled = false;

  constructor(options: LanOptions) {
    super();
    this.setMaxListeners(0);
    this.#options = options;
    this.#port = options.port ?? MDNS_PORT;
    this.#intake = new Intake(options.wanted, this.#port, options.clock);
  }

  /** Resolves when it listens and sends on all usable links; then it follows changes of interfaces. */
  async open(): Promise<void> {
    await this.#update();
    void this.#follow();
  }

  /** Why nothing can be received or sent; undefined while something can. */
  get problem(): string | undefined {
    const senders = [...this.#senders.values()];
    if (senders.some(({ problem }) => problem === undefined)) return undefined;
    const reasons = [
      ...(this.#unreadable === undefined ? [] : [this.#unreadable]),
      ...senders.map(({ link, problem }) => `${link.address}: ${problem}`),
      ...[...this.#refused.values()].map(({ link, reason }) => `${link.interfaceName}: ${reason}`),
    ];
    const { interfaces } = this.#options;
    const where = interfaces === 'all' ? 'no network interface but loopback' : `no interface ${interfaces.join(', ')}`;
    return reasons.length === 0
      ? `no multicast on this machine: ${where} has an address`
      : `no multicast on this machine: ${singleLine(reasons.slice(0, 4).join('; '), MAX_REASON_CHARS)}`;
  }

  /** Existing links that cannot be used. */
  get unusable(): readonly { readonly link: string; readonly reason: string }[] {
    return [...this.#refused.values()].map(({ link: { interfaceName, family, address }, reason }) => ({
      link: `${interfaceName} ${family} ${address}`,
      reason,
    }));
  }

  /** The interface on which `address` is a neighbour now, or undefined. */
  interfaceOf(address: string, family: Link['family']): string | undefined {
    return this.#neighbour(address, family);
  }

  /** Sends on every link. Never rejects: a link without network is not an error. */
  async send(packet: Uint8Array): Promise<void> {
    await Promise.all([...this.#senders.values()].map((sender) => sender.send(packet)));
  }

  /** Idempotent. */
  close(): void {
    this.#root.abort();
    for (const socket of [...this.#senders.values(), ...this.#receivers.values()]) socket.close();
    this.#senders.clear();
    this.#receivers.clear();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#root;
    while (!signal.aborted) {
      await this.#options.clock.sleep(LINKS_EVERY_MS, signal);
      try {
        if (!signal.aborted && (await this.#update()) && !signal.aborted) this.emit('links');
      } catch (error) {
        // Perhaps thrown by a listener. The next update may succeed.
        this.#options.logger.log('debug', 'new network links could not be used', { reason: reasonOf(error) });
      }
    }
  }

  #readInterfaces(): Interfaces {
    try {
      this.#unreadable = undefined;
      return (this.#options.readInterfaces ?? networkInterfaces)();
    } catch (error) {
      // A sandbox may forbid it.
      this.#unreadable = `the network interfaces cannot be read: ${reasonOf(error)}`;
      return {};
    }
  }

  /** True if links were added or removed. */
  async #update(): Promise<boolean> {
    const interfaces = this.#readInterfaces();
    const wanted = linksOf(interfaces, this.#options.interfaces);
    this.#neighbour = neighbourhood(interfaces, wanted);
    const keys = new Set(wanted.map(({ key }) => key));
    for (const key of this.#refused.keys()) if (!keys.has(key)) this.#refused.delete(key);
    let changed = false;
    for (const { link } of this.#senders.values()) if (!keys.has(link.key)) changed = this.#drop(link);
    for (const link of wanted) if (await this.#keep(link)) changed = true;
    return changed;
  }

  /** True if the link is new, or usable again. */
  async #keep(link: Link): Promise<boolean> {
    const known = this.#senders.get(link.key);
    try {
      const receiver = await this.#receiverOf(link.family);
      if (this.#root.signal.aborted) return false;
      const joined = receiver.join(link);
      if (known !== undefined) {
        known.renew();
        return joined;
      }
      const sender = new Sender(link, this.#port);
      await sender.ready.catch((error: unknown) => {
        sender.close();
        throw error;
      });
      // Closed meanwhile.
      if (this.#root.signal.aborted) sender.close();
      else this.#senders.set(link.key, sender);
      this.#refused.delete(link.key);
      return true;
    } catch (error) {
      // An IPv6 address may still be tentative, or the interface is being removed; the next update tries again.
      this.#refused.set(link.key, { link, reason: reasonOf(error) });
      return known === undefined ? false : this.#drop(link);
    }
  }

  #drop(link: Link): true {
    this.#senders.get(link.key)?.close();
    this.#senders.delete(link.key);
    this.#receivers.get(link.family)?.leave(link);
    return true;
  }

  async #receiverOf(family: Link['family']): Promise<PacketReceiver> {
    const known = this.#receivers.get(family);
    if (known !== undefined) return known;
    const receiver = new PacketReceiver(family, this.#port, (packet, from) => this.#take(packet, from));
    await receiver.ready.catch((error: unknown) => {
      receiver.close();
      throw error;
    });
    if (this.#root.signal.aborted) receiver.close();
    else this.#receivers.set(family, receiver);
    return receiver;
  }

  #take(packet: Buffer, from: RemoteInfo): void {
    const interfaceName = this.#neighbour(from.address, from.family);
    if (interfaceName === undefined || !this.#intake.admits(packet, from)) return;
    try {
      this.emit('message', packet, { ...from, interfaceName });
    } catch (error) {
      // Anyone can send anything; nothing of it may end this process. One line in the log is enough.
      if (this.#hasMishandled) return;
      this.#hasMishandled = true;
      const reason = reasonOf(error);
      this.#options.logger.log('warn', 'an mDNS packet could not be handled; later ones are not logged', { reason });
    }
  }
}
