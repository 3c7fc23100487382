import { deferred, within } from './wait.ts';

/** A growing list whose future items can be awaited. */
export class Arrivals<T> {
  readonly items: T[] = [];
  readonly #checks = new Set<(item: T) => void>();

  add(item: T): void {
    this.items.push(item);
    for (const check of this.#checks) check(item);
  }

  /** Resolves with the first past or future item that `fits`. `from` skips that many items. */
  async first(
    what: () => string,
    fits: (item: T) => boolean,
    { from = 0, timeoutMs }: { readonly from?: number; readonly timeoutMs?: number | undefined } = {},
  ): Promise<T> {
    const match = deferred<T>();
    const check = (item: T): void => {
      if (fits(item)) match.resolve(item);
    };
    this.items.slice(from).forEach(check);
    this.#checks.add(check);
    try {
      return await within(match.promise, what, timeoutMs);
    } finally {
      this.#checks.delete(check);
    }
  }
}
