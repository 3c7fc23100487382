import type { Bonjour, ServiceConfig } from 'bonjour-service';

import { within } from '../base/within.ts';
import { bonjourOver } from './engine.ts';
import { Lan, type LanOptions, MDNS_PORT } from './lan.ts';
import { type Advertised, CONNECTED_TYPE_NAME, txtOf } from './service-types.ts';

export interface PublisherOptions extends Omit<LanOptions, 'wanted'> {
  readonly instance: Advertised & { readonly id: string };
  /** On which the instance listens, on every address. */
  readonly listensOn: number;
}

/** A goodbye is one packet on each link. */
const GOODBYE_LIMIT_MS = 300;

/** Advertises one instance on the LAN, and answers who asks for it. */
export class Publisher {
  readonly #options: PublisherOptions;
  readonly #lan: Lan;
  #bonjour: Bonjour | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#lan = new Lan({ ...options, wanted: 'queries' });
    this.#lan.on('links', () => this.#publish());
  }

  /** Resolves when it is advertised wherever that is possible now; from then on it follows the interfaces. */
  async open(): Promise<void> {
    await this.#lan.open();
    this.#publish();
  }

  /** Why nobody can hear it; undefined while somebody could. */
  get problem(): string | undefined {
    return this.#lan.problem;
  }

  /** Says goodbye. Idempotent; resolves within GOODBYE_LIMIT_MS. */
  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    const bonjour = this.#bonjour;
    if (bonjour !== undefined) {
      const late = (): Error => new Error('nobody took the goodbye');
      const limit = { clock: this.#options.clock, ms: GOODBYE_LIMIT_MS, late };
      await within(limit, () => new Promise<void>((resolve) => bonjour.unpublishAll(resolve))).catch(() => {});
    }
    bonjour?.destroy();
    this.#lan.close();
  }

  /** Rebuilt when the links change: records hold the addresses of the time they were made. */
  #publish(): void {
    if (this.#closing !== undefined) return;
    const { instance, listensOn, port = MDNS_PORT } = this.#options;
    // Without a goodbye: it is still there.
    this.#bonjour?.destroy();
    this.#bonjour = bonjourOver(this.#lan, port);
    const service: ServiceConfig = {
      // Of a name that no other instance has, nothing needs to be asked first.
      name: `opencode-${instance.id}`,
      probe: false,
      type: CONNECTED_TYPE_NAME,
      protocol: 'tcp',
      host: `opencode-${instance.id}.local`,
      port: listensOn,
      txt: txtOf(instance),
    };
    this.#bonjour.publish(service);
  }
}
