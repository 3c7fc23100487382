import type { Instance, Snapshot } from '../directory/instance.ts';
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
  #known: ReadonlyMap<string, string> | undefined;
  #hasListed = false;

  constructor(to: NewsTo) {
    this.#to = to;
  }

  /** From now on the client has a list that can be out of date. */
  listed(): void {
    this.#hasListed = true;
  }

  /** False where there are too many. */
  subscribe(uri: string): boolean {
    if (this.#subscribed.size >= MAX_SUBSCRIPTIONS) return false;
    this.#subscribed.add(uri);
    return true;
  }

  unsubscribe(uri: string): void {
    this.#subscribed.delete(uri);
  }

  changed({ instances }: Snapshot): void {
    const now = new Map(instances.map((instance) => [instance.name, fingerprint(instance)]));
    const before = this.#known ?? new Map<string, string>();
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

function fingerprint({ state, reason, overview }: Instance): string {
  return JSON.stringify([state, reason, overview?.session, overview?.pending]);
}
