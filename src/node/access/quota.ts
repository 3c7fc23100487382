/**
 * Requests that one machine may have under way, upgraded sockets included: far more than an MCP server and several `opencode
 * attach` have, and a part of all connections, so that a machine that goes wild leaves the others theirs.
 */
export const MAX_REQUESTS_PER_CALLER = 100;

/** Counts what each caller has under way. */
export class Quota {
  readonly #max: number;
  readonly #taken = new Map<string, number>();

  constructor(max = MAX_REQUESTS_PER_CALLER) {
    this.#max = max;
  }

  /** Gives the function that gives the place back, or undefined where this caller has all of its own. */
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
