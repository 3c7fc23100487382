import type { Bonjour, ServiceConfig } from 'bonjour-service';

import { within } from '../base/within.ts';
import { bonjourOver } from './engine.ts';
import { Lan, type LanOptions, MDNS_PORT } from './lan.ts';
import { type Advertised, CONNECTED_TYPE_NAME, txtOf } from './service-types.ts';

export interface PublisherOptions extends Omit<LanOptions, 'wanted'> {
  readonly instance: Advertised & { readonly id: string };
  /** The instance's port, on every address. */
  readonly listensOn: number;
}

/** A goodbye is one packet on each link. */
const GOODBYE_LIMIT_MS = 300;

/** Advertises one instance on the LAN, and answers queries for it. */
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

  /** Resolves when it is advertised on all usable links; then it follows changes of interfaces. */
  async open(): Promise<void> {
    await this.#lan.open();
    this.#publish();
  }

  /** Why it cannot be advertised; undefined while it is. */
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
      const late = (): Error => new Error('the goodbye was not sent in time');
      const limit = { clock: this.#options.clock, ms: GOODBYE_LIMIT_MS, late };
      await within(limit, () => new Promise<void>((resolve) => bonjour.unpublishAll(resolve))).catch(() => {});
    }
    bonjour?.destroy();
    this.#lan.close();
  }

  /** Called again when links change, because records contain the addresses of their time. */
  #publish(): void {
    if (this.#closing !== undefined) return;
    const { instance, listensOn, port = MDNS_PORT } = this.#options;
    // No goodbye: the instance is still running.
    this.#bonjour?.destroy();
    this.#bonjour = bonjourOver(this.#lan, port);
    const service: ServiceConfig = {
      // The name is unique, so no probing for conflicts is needed.
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
