import type { LoadGauge } from '../../test/rig/fake/fake-opencode.ts';

/** How many instances have a request open: now, and at most since the last reading. */
export class BusyInstances {
  #now = 0;
  #max = 0;

  /** The gauge of one instance. */
  gauge(): LoadGauge {
    let open = 0;
    const change = (next: number): void => {
      if (open === 0 && next > 0) this.#now += 1;
      if (open > 0 && next === 0) this.#now -= 1;
      open = next;
      this.#max = Math.max(this.#max, this.#now);
    };
    return {
      max: 0,
      get current() {
        return open;
      },
      set current(next: number) {
        change(next);
      },
    };
  }

  takeMax(): number {
    const max = this.#max;
    this.#max = this.#now;
    return max;
  }
}
