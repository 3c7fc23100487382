import type { Bonjour } from 'bonjour-service';
import * as z from 'zod';

import { wallTime } from '../../base/clock.ts';
import { announcementsIn } from '../../mdns/announcements.ts';
import { quoteName } from '../../base/plain-text.ts';
import { bonjourOver, multicastOf } from '../../mdns/engine.ts';
import { Lan, type LanOptions, MDNS_PORT } from '../../mdns/lan.ts';
import { CONNECTED_TYPE, OPENCODE_TYPE } from '../../mdns/service-types.ts';
import type { Scan } from '../source.ts';
import { advertisedCandidate, linkLocalDials, noteOn } from './candidate.ts';
import { QUERY_EVERY_MS, Sightings } from './sightings.ts';

export interface LanViewOptions extends Omit<LanOptions, 'wanted'> {
  /** Name of the source. */
  readonly source: string;
  /** A scan may give something else than the last one. */
  readonly onChange: () => void;
}

/** A scan asks again, unless the last question is as recent as this: polls do, and a person who refreshes. */
const ASK_AGAIN_MS = 5000;
/** After the opening, and after each change of the links: the first question may be lost, and the second may come before a machine is ready (RFC 6762 section 5.2). */
const FIRST_PAUSES_MS = [1000, 3000];
/** RFC 6762 section 5.2. */
const LEAST_PAUSE_MS = 1000;

const originSchema = z.object({
  address: z.string(),
  family: z.enum(['IPv4', 'IPv6']),
  port: z.number(),
  interfaceName: z.string(),
});

/** What this machine sees on its LANs: asks for our two service types, again and again. Opened once, closed once. */
export class LanView {
  readonly #options: LanViewOptions;
  readonly #sightings = new Sightings();
  readonly #lan: Lan;
  readonly #bonjour: Bonjour;
  readonly #dialOn = linkLocalDials();
  readonly #root = new AbortController();
  #wake = new AbortController();
  #queriedMs = -Infinity;
  /** Added to the monotonic clock: sightings are spans, and what is claimed of one is compared with times of registrations. */
  readonly #epochMs: number;
  /** Pauses before the next questions. */
  #pauses: number[] = [];

  constructor(options: LanViewOptions) {
    this.#options = options;
    this.#epochMs = wallTime(options.clock, 0);
    this.#lan = new Lan({ ...options, wanted: 'responses' });
    this.#bonjour = bonjourOver(this.#lan, options.port ?? MDNS_PORT);
    multicastOf(this.#bonjour).on('response', (packet, from) => this.#take(packet, from));
    this.#lan.on('links', () => {
      this.#pauses = [...FIRST_PAUSES_MS];
      this.#query();
      this.#wake.abort();
      options.onChange();
    });
  }

  /** Resolves when it listens and has asked. */
  async open(): Promise<void> {
    await this.#lan.open();
    if (this.#root.signal.aborted) return;
    this.#query();
    this.#pauses = [...FIRST_PAUSES_MS];
    void this.#keepAsking();
  }

  /** Why nothing can be seen; undefined while something can. */
  get problem(): string | undefined {
    return this.#lan.problem;
  }

  ask(): void {
    this.#askUnlessWithin(ASK_AGAIN_MS);
  }

  scan(): Scan {
    const sightings = this.#sightings.current(
      this.#nowMs,
      ({ address, family, interfaceName }) => this.#lan.interfaceOf(address, family) === interfaceName,
    );
    return {
      candidates: sightings.map((sighting) => advertisedCandidate(this.#options.source, sighting, this.#dialOn)),
      notes: [...this.#sightings.notes, ...sightings.flatMap(noteOn)],
      dropped: this.#lan.unusable.map(({ link, reason }) => ({
        subject: quoteName(link),
        reason: `cannot be used: ${reason}`,
      })),
    };
  }

  /** Idempotent. */
  close(): void {
    if (this.#root.signal.aborted) return;
    this.#root.abort();
    this.#wake.abort();
    this.#bonjour.destroy();
    this.#lan.close();
  }

  get #nowMs(): number {
    return this.#epochMs + this.#options.clock.monotonic();
  }

  async #keepAsking(): Promise<void> {
    while (!this.#root.signal.aborted) {
      this.#wake = new AbortController();
      await this.#options.clock.sleep(this.#pauses.shift() ?? QUERY_EVERY_MS, this.#wake.signal);
      this.#askUnlessWithin(LEAST_PAUSE_MS);
    }
  }

  #askUnlessWithin(ms: number): void {
    if (this.#options.clock.monotonic() - this.#queriedMs >= ms) this.#query();
  }

  #query(): void {
    if (this.#root.signal.aborted) return;
    this.#queriedMs = this.#options.clock.monotonic();
    multicastOf(this.#bonjour).query([OPENCODE_TYPE, CONNECTED_TYPE].map((name) => ({ name, type: 'PTR' })));
  }

  #take(packet: unknown, from: unknown): void {
    const origin = originSchema.safeParse(from);
    if (!origin.success) return;
    const { onChange } = this.#options;
    for (const announcement of announcementsIn(packet))
      if (this.#sightings.hear(announcement, origin.data, this.#nowMs)) onChange();
  }
}
