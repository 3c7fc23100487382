import type { LanOptions } from '../../mdns/lan.ts';
import { Browser } from '../../mdns/browser.ts';
import type { Scan } from '../source.ts';
import { advertisedCandidate, linkLocalDials, noteOn } from './candidate.ts';
import { Sightings } from './sightings.ts';

export interface LanViewOptions extends Omit<LanOptions, 'wanted'> {
  /** Name of the source. */
  readonly source: string;
  /** A scan may give something else than the last one. */
  readonly onChange: () => void;
}

/** A scan asks again, unless the last question is as recent as this: polls do, and a person who refreshes. */
const ASK_AGAIN_MS = 5000;

/** What this machine sees on its LANs. Opened once, closed once. */
export class LanView {
  readonly #options: LanViewOptions;
  readonly #sightings = new Sightings();
  readonly #browser: Browser;
  readonly #dialOn = linkLocalDials();

  constructor(options: LanViewOptions) {
    const { clock, onChange } = options;
    this.#options = options;
    this.#browser = new Browser({
      ...options,
      onAnnouncement: (announcement, origin) => {
        if (this.#sightings.hear(announcement, origin, clock.now())) onChange();
      },
      onLinks: onChange,
    });
  }

  open(): Promise<void> {
    return this.#browser.open();
  }

  /** Why nothing can be seen; undefined while something can. */
  get problem(): string | undefined {
    return this.#browser.lan.problem;
  }

  ask(): void {
    this.#browser.askUnlessWithin(ASK_AGAIN_MS);
  }

  scan(): Scan {
    const { lan } = this.#browser;
    const sightings = this.#sightings.current(
      this.#options.clock.now(),
      ({ address, family, interfaceName }) => lan.interfaceOf(address, family) === interfaceName,
    );
    return {
      candidates: sightings.map((sighting) => advertisedCandidate(this.#options.source, sighting, this.#dialOn)),
      notes: [...this.#sightings.notes, ...sightings.flatMap(noteOn)],
    };
  }

  close(): void {
    this.#browser.close();
  }
}
