import type { Snapshot } from '../directory/instance.ts';
import { parseUri } from './resource-uri.ts';

export interface NewsTo {
  listChanged(): void;
  updated(uri: string): void;
}

/** More than a client has use for. */
const MAX_SUBSCRIPTIONS = 1_000;

/** Tells a client what it asked to be told: that other instances are listed than it was shown, and that one it subscribed to is different. */
export class DirectoryNews {
  readonly #to: NewsTo;
  readonly #subscribed = new Set<string>();
  /** Since somebody wants to know. */
  #known: ReadonlyMap<string, string> | undefined;
  #hasListed = false;

  constructor(to: NewsTo) {
    this.#to = to;
  }

  /** From now on the client has a list that can be out of date. */
  listed(shown: Snapshot): void {
    this.#hasListed = true;
    this.#known ??= fingerprints(shown);
  }

  /** False where there are too many. */
  subscribe(uri: string, now: Snapshot): boolean {
    if (this.#subscribed.size >= MAX_SUBSCRIPTIONS) return false;
    this.#subscribed.add(uri);
    this.#known ??= fingerprints(now);
    return true;
  }

  unsubscribe(uri: string): void {
    this.#subscribed.delete(uri);
  }

  changed(snapshot: Snapshot): void {
    const before = this.#known;
    if (before === undefined) return;
    const now = fingerprints(snapshot);
    this.#known = now;
    const names = new Set([...before.keys(), ...now.keys()]);
    const different = new Set([...names].filter((name) => before.get(name) !== now.get(name)));
    if (this.#hasListed && (names.size !== before.size || names.size !== now.size)) this.#to.listChanged();
    for (const uri of this.#subscribed) {
      const name = parseUri(uri)?.instance;
      if (name !== undefined && different.has(name)) this.#to.updated(uri);
    }
  }
}

/** What is shown of each instance, by name. */
function fingerprints({ instances }: Snapshot): Map<string, string> {
  return new Map(
    instances.map(({ name, state, reason, overview }) => [
      name,
      JSON.stringify([state, reason, overview?.session, overview?.waiting]),
    ]),
  );
}
