/** Limits the concurrent requests of each caller. */
export class Quota {
  readonly #max: number;
  readonly #taken = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** Returns a function that releases the slot, or undefined if this caller has none left. */
  take(caller: string): (() => void) | undefined {
    const taken = this.#taken.get(caller) ?? 0;
    if (taken >= this.#max) return undefined;
    this.#taken.set(caller, taken + 1);
    let over = false;
    return () => {
      if (over) return;
      over = true;
      const left = (this.#taken.get(caller) ?? 1) - 1;
      if (left > 0) this.#taken.set(caller, left);
      else this.#taken.delete(caller);
    };
  }
}
