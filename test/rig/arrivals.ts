import { deferred, within } from './wait.ts';

/** A list that grows, and waits for its items. */
export class Arrivals<T> {
  readonly items: T[] = [];
  readonly #waiting = new Set<(item: T) => void>();

  add(item: T): void {
    this.items.push(item);
    for (const look of this.#waiting) look(item);
  }

  /** Resolves with the first past or future item that `fits`. `from` skips that many items. */
  async first(
    what: () => string,
    fits: (item: T) => boolean,
    { from = 0, timeoutMs }: { readonly from?: number; readonly timeoutMs?: number | undefined } = {},
  ): Promise<T> {
    const found = deferred<T>();
    const look = (item: T): void => {
      if (fits(item)) found.resolve(item);
    };
    this.items.slice(from).forEach(look);
    this.#waiting.add(look);
    try {
      return await within(found.promise, what, timeoutMs);
    } finally {
      this.#waiting.delete(look);
    }
  }
}
