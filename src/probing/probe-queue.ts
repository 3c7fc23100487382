/**
 * In order of precedence. `recheck` is the second look of a tool call, `again` that of any other. These two and `suspect` share
 * a quarter of the slots, so that hung servers do not hold up the others.
 */
const ORDER = ['urgent', 'known', 'fresh', 'recheck', 'suspect', 'again'] as const;
export type Rank = (typeof ORDER)[number];

/** With fewer slots, one slot is more than a quarter; suspects then come after new registrations. */
const SLOTS_FOR_A_RESERVE = 4;

/** Waiting jobs in order of precedence. Limits the slots of suspects. */
export class ProbeQueue<Job extends { dropped: boolean }> {
  readonly #waiting = Object.fromEntries(ORDER.map((rank) => [rank, new Fifo<Job>()])) as Record<Rank, Fifo<Job>>;
  readonly #order: readonly Rank[];
  readonly #suspectSlots: number;
  #suspectsOut = 0;

  constructor(slots: number) {
    this.#suspectSlots = Math.max(1, Math.floor(slots / 4));
    // A flood of new registrations must not keep suspects from their quarter.
    this.#order = slots < SLOTS_FOR_A_RESERVE ? ORDER : ['urgent', 'known', 'recheck', 'suspect', 'again', 'fresh'];
  }

  push(rank: Rank, job: Job): void {
    this.#waiting[rank].push(job);
  }

  /** The next job that may have a slot. Call `done` with its rank when it leaves the slot. */
  pick(): { readonly job: Job; readonly rank: Rank } | undefined {
    for (const rank of this.#order) {
      if (isSuspect(rank) && this.#suspectsOut >= this.#suspectSlots) continue;
      const queue = this.#waiting[rank];
      let job = queue.shift();
      while (job?.dropped) job = queue.shift();
      if (job === undefined) continue;
      if (isSuspect(rank)) this.#suspectsOut += 1;
      return { job, rank };
    }
    return undefined;
  }

  /** Returns whether a suspect that was passed over may have the slot. */
  done(rank: Rank): boolean {
    if (isSuspect(rank)) this.#suspectsOut -= 1;
    return isSuspect(rank);
  }
}

function isSuspect(rank: Rank): boolean {
  return rank === 'recheck' || rank === 'suspect' || rank === 'again';
}

/** `Array.shift` of 20,000 elements takes 1.4 s in all (Node 20). */
class Fifo<T> {
  #items: T[] = [];
  #head = 0;

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    const item = this.#items[this.#head];
    if (item === undefined) return undefined;
    this.#head += 1;
    if (this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}
