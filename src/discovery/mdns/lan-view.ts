import type { Bonjour } from 'bonjour-service';

import { wallTime } from '../../base/clock.ts';
import { announcementsIn } from '../../mdns/announcements.ts';
import { quoteName } from '../../base/plain-text.ts';
import { bonjourOver, multicastOf } from '../../mdns/engine.ts';
import { Lan, type LanOptions, MDNS_PORT, type Origin } from '../../mdns/lan.ts';
import { CONNECTED_TYPE, OPENCODE_TYPE } from '../../mdns/service-types.ts';
import type { Scan } from '../source.ts';
import { advertisedCandidate, linkLocalDials, noteOn } from './candidate.ts';
import { QUERY_EVERY_MS, Sightings } from './sightings.ts';

export interface LanViewOptions extends Omit<LanOptions, 'wanted'> {
  /** Name of the source. */
  readonly source: string;
  /** The next scan may differ from the last. */
  readonly onChange: () => void;
}

/** A scan (a poll, or a refresh by a person) sends a query unless one is as recent as this. */
const SCAN_QUERY_EVERY_MS = 5000;
/** Repeats after opening and after each change of links: the first query may be lost, the second may come before a machine is ready (RFC 6762 section 5.2). */
const FIRST_PAUSES_MS = [1000, 3000];
/** RFC 6762 section 5.2. */
const MIN_PAUSE_MS = 1000;

/** The services of our two types on the LANs of this machine, queried repeatedly. Opened once, closed once. */
export class LanView {
  readonly #options: LanViewOptions;
  readonly #sightings = new Sightings();
  readonly #lan: Lan;
  readonly #bonjour: Bonjour;
  readonly #dialOn = linkLocalDials();
  readonly #root = new AbortController();
  #wake = new AbortController();
  #queriedMs = -Infinity;
  /** Added to the monotonic clock: ages must not jump, and `connectedAt` is compared with wall times of registrations. */
  readonly #epochMs: number;
  /** Pauses before the next queries. */
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

  /** Resolves when it listens and has sent the first query. */
  async open(): Promise<void> {
    await this.#lan.open();
    if (this.#root.signal.aborted) return;
    this.#query();
    this.#pauses = [...FIRST_PAUSES_MS];
    void this.#keepQuerying();
  }

  /** Why nothing can be received; undefined while something can. */
  get problem(): string | undefined {
    return this.#lan.problem;
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

  /** Sends a query, whose answers cause `onChange`, unless one was sent just now. */
  query(): void {
    this.#queryUnlessWithin(SCAN_QUERY_EVERY_MS);
  }

  async #keepQuerying(): Promise<void> {
    while (!this.#root.signal.aborted) {
      this.#wake = new AbortController();
      await this.#options.clock.sleep(this.#pauses.shift() ?? QUERY_EVERY_MS, this.#wake.signal);
      this.#queryUnlessWithin(MIN_PAUSE_MS);
    }
  }

  #queryUnlessWithin(ms: number): void {
    if (this.#options.clock.monotonic() - this.#queriedMs >= ms) this.#query();
  }

  #query(): void {
    if (this.#root.signal.aborted) return;
    this.#queriedMs = this.#options.clock.monotonic();
    multicastOf(this.#bonjour).query([OPENCODE_TYPE, CONNECTED_TYPE].map((name) => ({ name, type: 'PTR' })));
  }

  #take(packet: unknown, from: Origin): void {
    for (const announcement of announcementsIn(packet))
      if (this.#sightings.add(announcement, from, this.#nowMs)) this.#options.onChange();
  }
}
