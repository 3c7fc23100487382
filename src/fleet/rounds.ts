import type { Clock } from '../base/clock.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';
import type { Batch } from '../probing/prober.ts';

export interface RoundsDeps {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly table: EndpointTable;
  readonly batch: Batch<EndpointRecord>;
  /** See `FleetDeps`. */
  readonly isFollowed: (record: EndpointRecord) => boolean;
  /** Called when every probe of a round has ended. */
  readonly onEnd: () => void;
}

/** Unlisted endpoints probed per round, oldest probe first: probing thousands of leftovers would keep a core busy for nothing. */
const MAX_DEAD_PER_ROUND = 500;

/**
 * Pauses before a failure that may be temporary is probed again, ahead of the next round: a cold opencode on a busy machine needs
 * seconds for its first answers, and a node service cannot identify callers while its tailscaled is busy.
 */
const RETRY_AFTER_MS = [2000, 5000, 10_000];

/** Probes every registered endpoint, once per interval and when it is new. */
export class Rounds {
  readonly #deps: RoundsDeps;
  readonly #inFlight = new Map<EndpointRecord, Promise<unknown>>();

  constructor(deps: RoundsDeps) {
    this.#deps = deps;
  }

  /** One probe outside the schedule; joins one that is under way. */
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

  /** Probes again after a pause; see `RETRY_AFTER_MS`. */
  async lookAgainSoon(record: EndpointRecord, signal: AbortSignal): Promise<void> {
    const pauseMs = RETRY_AFTER_MS[record.retries];
    if (pauseMs === undefined) return;
    record.retries += 1;
    await this.#deps.clock.sleep(pauseMs, signal);
    if (!signal.aborted && !record.healthy) await this.look(record);
  }

  /** Resolves when the probes that are under way now have ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight.values());
  }

  /** Resolves when the first probes of the endpoints that are new now have ended. */
  async newcomers(): Promise<void> {
    const looks = [...this.#inFlight].filter(([{ probedAtMs }]) => probedAtMs === undefined);
    await Promise.all(looks.map(([, looking]) => looking));
  }

  /** Runs rounds until `signal` aborts. */
  async keep(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs, onEnd } = this.#deps;
    for (;;) {
      await clock.sleep(intervalMs, signal);
      if (signal.aborted) return;
      const looks = this.#due().map((record) => {
        record.roundDue = true;
        return this.look(record);
      });
      // Not awaited: probes that hang may take longer than one interval, and must not delay the next round.
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
