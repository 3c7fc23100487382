import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { LanOptions } from '../../mdns/lan.ts';
import { ChangeNotifiers } from '../../base/change-notifier.ts';
import { unlessAborted } from '../../base/unless-aborted.ts';
import type { LanView } from './lan-view.ts';
import { type DiscoverySource, type Scan, SourceUnavailableError } from '../source.ts';

export const MDNS_SOURCE = 'mdns';

export type MdnsOptions = Pick<LanOptions, 'interfaces'>;

export interface MdnsDependencies extends Pick<LanOptions, 'port' | 'readInterfaces'> {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Wait of the first scan: awake neighbours answer within 120 ms (RFC 6762 section 6); later answers cause a hint. */
const FIRST_ANSWERS_MS = 500;

export function createMdnsSource(options: MdnsOptions, dependencies: MdnsDependencies): MdnsSource {
  return new MdnsSource(options, dependencies);
}

/** Instances on this LAN that are advertised by `opencode-connected --lan` or `opencode --mdns`. */
class MdnsSource implements DiscoverySource {
  readonly name = MDNS_SOURCE;
  readonly #options: MdnsOptions;
  readonly #dependencies: MdnsDependencies;
  readonly #root = new AbortController();
  readonly #notifiers = new ChangeNotifiers(this.#root.signal);
  /** Opened on first use. */
  #opening: Promise<LanView> | undefined;
  #answered: Promise<void> | undefined;

  constructor(options: MdnsOptions, dependencies: MdnsDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    return unlessAborted(unlessAborted(this.#scan(), signal), this.#root.signal);
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

  async #scan(): Promise<Scan> {
    const view = await this.#open();
    const check = (): void => {
      this.#root.signal.throwIfAborted();
      if (view.problem !== undefined) throw new SourceUnavailableError(view.problem);
    };
    check();
    view.query();
    await (this.#answered ??= this.#dependencies.clock.sleep(FIRST_ANSWERS_MS, this.#root.signal));
    check();
    return view.scan();
  }

  /** Lazy, so that a server without a client loads and opens as little as possible. */
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
