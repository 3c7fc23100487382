import type { Snapshot } from '../../model/instance.ts';
import { parseUri } from './resource-uri.ts';

type Shown = Pick<Snapshot, 'instances'>;

/** Each resolves once the client has room for the next. */
export interface NewsTo {
  listChanged(): Promise<void>;
  updated(uri: string): Promise<void>;
}

/** More than a client has use for. */
const MAX_SUBSCRIPTIONS = 1_000;

/** Tells a client what it asked to be told: that other instances are listed than it was shown, and that one it subscribed to is different. */
export class FleetNews {
  readonly #to: NewsTo;
  readonly #subscribed = new Set<string>();
  /** Since somebody wants to know. */
  #known: ReadonlyMap<string, string> | undefined;
  #hasListed = false;
  #unread = 0;
  /** The latest that came while the client did not read. */
  #due: (() => Snapshot) | undefined;

  constructor(to: NewsTo) {
    this.#to = to;
  }

  /** From now on the client has a list that can be out of date. */
  listed(shown: Shown): void {
    this.#hasListed = true;
    this.#known ??= fingerprints(shown);
  }

  /** False where there are too many. */
  subscribe(uri: string, now: Shown): boolean {
    if (this.#subscribed.size >= MAX_SUBSCRIPTIONS) return false;
    this.#subscribed.add(uri);
    this.#known ??= fingerprints(now);
    return true;
  }

  unsubscribe(uri: string): void {
    this.#subscribed.delete(uri);
  }

  /**
   * `snapshot` is called only where somebody is to be notified. A client that does not read is notified later, once, of what is
   * different by then.
   */
  changed(snapshot: () => Snapshot): void {
    const before = this.#known;
    if (before === undefined) return;
    this.#due = this.#unread > 0 ? snapshot : undefined;
    if (this.#due !== undefined) return;
    const now = fingerprints(snapshot());
    this.#known = now;
    const names = new Set([...before.keys(), ...now.keys()]);
    const different = new Set([...names].filter((name) => before.get(name) !== now.get(name)));
    if (this.#hasListed && (names.size !== before.size || names.size !== now.size)) this.#tells(this.#to.listChanged());
    for (const uri of this.#subscribed) {
      const name = parseUri(uri)?.instance;
      if (name !== undefined && different.has(name)) this.#tells(this.#to.updated(uri));
    }
  }

  #tells(reading: Promise<void>): void {
    this.#unread += 1;
    void reading.then(() => {
      this.#unread -= 1;
      if (this.#unread === 0 && this.#due !== undefined) this.changed(this.#due);
    });
  }
}

/** What is shown of each instance, by name. */
function fingerprints({ instances }: Shown): Map<string, string> {
  return new Map(
    instances.map(({ name, state, reason, overview }) => [
      name,
      JSON.stringify([state, reason, overview?.session, overview?.waiting]),
    ]),
  );
}
