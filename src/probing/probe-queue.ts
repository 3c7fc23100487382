/**
 * Who goes first when a slot is free, best first. `recheck` is a tool call's second look and `again` everyone else's:
 * they and the suspects share one quarter of the slots, so that what hangs never holds up what lives.
 */
const ORDER = ['urgent', 'known', 'fresh', 'recheck', 'suspect', 'again'] as const;
export type Rank = (typeof ORDER)[number];

/** With fewer slots than this, a quarter is more than a quarter; then suspects wait for new ones too. */
const SLOTS_FOR_A_RESERVE = 4;

/** Waiting jobs in order of urgency, with the suspects' share of the slots. */
export class ProbeQueue<Job extends { dropped: boolean }> {
  readonly #waiting: Record<Rank, Fifo<Job>> = {
    urgent: new Fifo(),
    known: new Fifo(),
    fresh: new Fifo(),
    recheck: new Fifo(),
    suspect: new Fifo(),
    again: new Fifo(),
  };
  readonly #order: readonly Rank[];
  readonly #suspectSlots: number;
  #suspectsOut = 0;

  constructor(slots: number) {
    this.#suspectSlots = Math.max(1, Math.floor(slots / 4));
    // A flood of new registrations must not keep suspects from their quarter; known-healthy ones are few enough.
    this.#order = slots < SLOTS_FOR_A_RESERVE ? ORDER : ['urgent', 'known', 'recheck', 'suspect', 'again', 'fresh'];
  }

  push(rank: Rank, job: Job): void {
    this.#waiting[rank].push(job);
  }

  /** The next job that may have a slot now. Its rank is given back to `done` when it leaves the slot. */
  pick(): { readonly job: Job; readonly rank: Rank } | undefined {
    for (const rank of this.#order) {
      if (isSuspect(rank) && this.#suspectsOut >= this.#suspectSlots) continue;
      const job = this.#next(this.#waiting[rank]);
      if (job === undefined) continue;
      if (isSuspect(rank)) this.#suspectsOut += 1;
      return { job, rank };
    }
    return undefined;
  }

  /** True where a suspect that was passed over may go now. */
  done(rank: Rank): boolean {
    if (isSuspect(rank)) this.#suspectsOut -= 1;
    return isSuspect(rank);
  }

  #next(queue: Fifo<Job>): Job | undefined {
    let job = queue.shift();
    while (job?.dropped) job = queue.shift();
    return job;
  }
}

function isSuspect(rank: Rank): boolean {
  return rank === 'recheck' || rank === 'suspect' || rank === 'again';
}

/** `Array.shift` moves every element that stays, which 10,000 waiting registrations would feel. */
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
