import type { Bonjour } from 'bonjour-service';
import * as z from 'zod';

import { type Announcement, announcementsIn } from './announcements.ts';
import { bonjourOver, multicastOf } from './engine.ts';
import { Lan, type LanOptions, MDNS_PORT, type Origin } from './lan.ts';
import { CONNECTED_TYPE, OPENCODE_TYPE } from './service-types.ts';

export interface BrowserOptions extends Omit<LanOptions, 'wanted'> {
  readonly onAnnouncement: (announcement: Announcement, origin: Origin) => void;
  /** There are other links than before. */
  readonly onLinks: () => void;
}

/** After the opening, and after each change of the links: the first question may be lost, and the second may come before a machine is ready (RFC 6762 section 5.2). */
const FIRST_PAUSES_MS = [1000, 3000];
/** Later: opencode's records are good for 8 h, and it never says that they no longer are. */
export const QUERY_EVERY_MS = 60_000;
/** RFC 6762 section 5.2. */
const LEAST_PAUSE_MS = 1000;

const originSchema = z.object({
  address: z.string(),
  family: z.enum(['IPv4', 'IPv6']),
  port: z.number(),
  interfaceName: z.string(),
});

/** Asks the LAN for our two service types, again and again, and hears what it says of them. */
export class Browser {
  readonly lan: Lan;
  readonly #options: BrowserOptions;
  readonly #bonjour: Bonjour;
  readonly #root = new AbortController();
  #wake = new AbortController();
  #queriedMs = -Infinity;
  /** Pauses before the next questions. */
  #pauses: number[] = [];

  constructor(options: BrowserOptions) {
    const port = options.port ?? MDNS_PORT;
    this.#options = options;
    this.lan = new Lan({ ...options, wanted: 'responses' });
    this.#bonjour = bonjourOver(this.lan, port);
    multicastOf(this.#bonjour).on('response', (packet, from) => this.#hear(packet, from));
    this.lan.on('links', () => {
      this.#restart();
      options.onLinks();
    });
  }

  /** Resolves when it listens and has asked. */
  async open(): Promise<void> {
    await this.lan.open();
    if (this.#root.signal.aborted) return;
    this.#query();
    this.#pauses = [...FIRST_PAUSES_MS];
    void this.#keepAsking();
  }

  /** Asks now, unless it has within the last `ms`. */
  askUnlessWithin(ms: number): void {
    if (this.#options.clock.now() - this.#queriedMs >= ms) this.#query();
  }

  /** Idempotent. */
  close(): void {
    if (this.#root.signal.aborted) return;
    this.#root.abort();
    this.#wake.abort();
    this.#bonjour.destroy();
    this.lan.close();
  }

  async #keepAsking(): Promise<void> {
    const { clock } = this.#options;
    while (!this.#root.signal.aborted) {
      this.#wake = new AbortController();
      const pauseMs = this.#pauses.shift() ?? QUERY_EVERY_MS;
      await clock.sleep(pauseMs, this.#wake.signal);
      if (!this.#root.signal.aborted) this.askUnlessWithin(LEAST_PAUSE_MS);
    }
  }

  #restart(): void {
    this.#pauses = [...FIRST_PAUSES_MS];
    this.#query();
    this.#wake.abort();
  }

  #query(): void {
    if (this.#root.signal.aborted) return;
    this.#queriedMs = this.#options.clock.now();
    multicastOf(this.#bonjour).query([OPENCODE_TYPE, CONNECTED_TYPE].map((name) => ({ name, type: 'PTR' })));
  }

  #hear(packet: unknown, from: unknown): void {
    const origin = originSchema.safeParse(from);
    if (!origin.success) return;
    for (const announcement of announcementsIn(packet)) this.#options.onAnnouncement(announcement, origin.data);
  }
}
