import * as z from 'zod';

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { LanOptions } from '../../mdns/lan.ts';
import { ChangeNotifiers } from '../../base/change-notifier.ts';
import { unlessAborted } from '../../base/unless-aborted.ts';
import type { LanView } from './lan-view.ts';
import { type DiscoverySource, type Scan, SourceUnavailableError } from '../source.ts';

export const MDNS_SOURCE = 'mdns';

export const mdnsOptions = z.object({
  interfaces: z.union([z.literal('all'), z.array(z.string().min(1)).readonly()]),
});
export type MdnsOptions = z.infer<typeof mdnsOptions>;

export interface MdnsDependencies extends Pick<LanOptions, 'port' | 'readInterfaces'> {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Neighbours that are awake have answered by then (RFC 6762 section 6 has them wait up to 120 ms); the others are hinted at. */
const FIRST_ANSWERS_MS = 500;

export function createMdnsSource(options: MdnsOptions, dependencies: MdnsDependencies): MdnsSource {
  return new MdnsSource(options, dependencies);
}

/** Instances on this LAN that advertise themselves: of `opencode-connected --lan` and of `opencode --mdns`. */
class MdnsSource implements DiscoverySource {
  readonly name = MDNS_SOURCE;
  readonly #options: MdnsOptions;
  readonly #dependencies: MdnsDependencies;
  readonly #root = new AbortController();
  readonly #notifiers = new ChangeNotifiers(this.#root.signal);
  /** Opened by the first who looks. */
  #opening: Promise<LanView> | undefined;
  #answered: Promise<void> | undefined;

  constructor(options: MdnsOptions, dependencies: MdnsDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    return unlessAborted(unlessAborted(this.#look(), signal), this.#root.signal);
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const notifier = this.#notifiers.open(signal);
    if (notifier.ended.aborted) return notifier;
    void this.#open().then(
      () => notifier.notify(),
      // A scan reports why.
      () => {},
    );
    return notifier;
  }

  async close(): Promise<void> {
    this.#root.abort(new Error(`the source ${MDNS_SOURCE} is closed`));
    const view = await this.#opening?.catch(() => undefined);
    view?.close();
  }

  async #look(): Promise<Scan> {
    const view = await this.#open();
    const check = (): void => {
      this.#root.signal.throwIfAborted();
      if (view.problem !== undefined) throw new SourceUnavailableError(view.problem);
    };
    check();
    view.ask();
    await (this.#answered ??= this.#dependencies.clock.sleep(FIRST_ANSWERS_MS, this.#root.signal));
    check();
    return view.scan();
  }

  /** Loads what it needs only now: a server that has no client yet should be light, and no socket should be open in vain. */
  #open(): Promise<LanView> {
    this.#opening ??= import('./lan-view.ts').then(async ({ LanView: View }) => {
      this.#root.signal.throwIfAborted();
      const onChange = (): void => this.#notifiers.notify();
      const view = new View({ ...this.#options, ...this.#dependencies, source: MDNS_SOURCE, onChange });
      await view.open();
      return view;
    });
    this.#opening.catch(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }
}
