import type { Clock } from '../base/clock.ts';
import type { EndpointRecord, EndpointTable } from './endpoint-table.ts';
import type { Batch } from '../probing/prober.ts';

export interface RoundsDeps {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly table: EndpointTable;
  readonly batch: Batch<EndpointRecord>;
  /** See `FleetDeps`. */
  readonly isFollowed: (record: EndpointRecord) => boolean;
  /** Everything that a round asked has answered or failed. */
  readonly onEnd: () => void;
}

/**
 * Registrations that are long dead and asked in one round, those first that were not asked for longest. A few leftovers
 * are asked every time; thousands would keep a core busy for nothing.
 */
const MAX_DEAD_PER_ROUND = 500;

/**
 * Pauses before what failed for something that may be over soon is asked again: a cold opencode on a busy machine needs
 * seconds for its first answers, and a node service whose tailscaled is busy cannot say who calls. Nobody should wait for
 * the next round because of that.
 */
const RETRY_AFTER_MS = [2000, 5000, 10_000];

/** Looks at everything that is registered, once per interval and when it is new. */
export class Rounds {
  readonly #deps: RoundsDeps;
  readonly #inFlight = new Map<EndpointRecord, Promise<unknown>>();

  constructor(deps: RoundsDeps) {
    this.#deps = deps;
  }

  /** One look, outside the schedule; a second is not asked for while it waits. */
  look(record: EndpointRecord): Promise<unknown> {
    if (!record.askable) return Promise.resolve();
    const known = this.#inFlight.get(record);
    if (known !== undefined) return known;
    const looking = this.#deps.batch
      .look(record, { parts: record.unknownParts })
      .then(() => this.#inFlight.delete(record));
    this.#inFlight.set(record, looking);
    return looking;
  }

  /** Looks again soon at what failed for something that may be over then; a few times until it answers, ahead of the schedule. */
  async lookAgainSoon(record: EndpointRecord, signal: AbortSignal): Promise<void> {
    const pauseMs = RETRY_AFTER_MS[record.retries];
    if (pauseMs === undefined) return;
    record.retries += 1;
    await this.#deps.clock.sleep(pauseMs, signal);
    if (!signal.aborted && !record.healthy) await this.look(record);
  }

  /** Resolves when what is being looked at now has answered or failed. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight.values());
  }

  /** Resolves when everything that was never looked at before has answered or failed. */
  async newcomers(): Promise<void> {
    const looks = [...this.#inFlight].filter(([{ probedAtMs }]) => probedAtMs === undefined);
    await Promise.all(looks.map(([, looking]) => looking));
  }

  /** A round per interval until `signal` aborts. */
  async keep(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs, onEnd } = this.#deps;
    for (;;) {
      await clock.sleep(intervalMs, signal);
      if (signal.aborted) return;
      const looks = this.#due().map((record) => {
        record.roundDue = true;
        return this.look(record);
      });
      // Not awaited: registrations that hang may take longer than one interval, and those that live must not wait for them.
      void Promise.all(looks).then(onEnd);
    }
  }

  #due(): EndpointRecord[] {
    const { table, isFollowed } = this.#deps;
    const records = [...table.all()].filter((record) => !(record.healthy && isFollowed(record)));
    const dead = records.filter((record) => record.unlisted);
    if (dead.length <= MAX_DEAD_PER_ROUND) return records;
    const longest = dead.toSorted((one, other) => (one.probedAtMs ?? 0) - (other.probedAtMs ?? 0));
    return [...records.filter((record) => !record.unlisted), ...longest.slice(0, MAX_DEAD_PER_ROUND)];
  }
}
