import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';

/** `now`: a session began, ended or waits for an answer. `soon`: another change that is shown. */
export type Urgency = 'now' | 'soon';

/** A turn that asks for permission, gets it and ends makes four changes; each is surveyed immediately. */
const BURST = 5;
/** Time between surveys beyond the burst: changes still show within 150 ms. */
const REFILL_MS = 100;
/** The least time between surveys for changes that are not urgent. */
const INTERVAL_MS = 1000;
/** A state counts for 60 s; this leaves the survey 8 s to answer. Events may miss a change. */
const RECONCILE_MS = 52_000;
/** Spreads the surveys of servers found together: each server's interval is shorter by up to this. */
const SPREAD_MS = 10_000;
/** Pause after an incomplete survey; doubles each time. */
const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 15_000;

/** Decides when to survey one server: immediately after a change, ten times a second while it keeps changing, and every 42 to 52 s regardless. */
export class SurveyPace {
  readonly #clock: Clock;
  readonly #reconcileMs: number;
  #tokens = BURST;
  #refilledMs: number;
  #askedMs: number;
  #pending: Urgency | undefined;
  #scheduledMs = Infinity;
  #retryMs = RETRY_MS;
  #wake: () => void = () => {};

  /** @param share of the spread that shortens the interval, 0 to 1 */
  constructor(clock: Clock, share: number) {
    this.#clock = clock;
    this.#reconcileMs = RECONCILE_MS - SPREAD_MS * share;
    this.#refilledMs = clock.monotonic();
    this.#askedMs = this.#refilledMs;
  }

  hint(urgency: Urgency): void {
    if (this.#pending === 'now' || this.#pending === urgency) return;
    this.#pending = urgency;
    this.#wake();
  }

  /** Surveys within `ms`, or earlier. */
  within(ms: number): void {
    this.#scheduledMs = Math.min(this.#scheduledMs, this.#clock.monotonic() + ms);
    this.#wake();
  }

  /** Reports whether the last survey was complete. */
  answered(isWhole: boolean): void {
    if (isWhole) {
      this.#retryMs = RETRY_MS;
      return;
    }
    this.within(this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, LONGEST_RETRY_MS);
  }

  /** Resolves when the next survey is due, with its cause, or when `signal` aborts. */
  async next(signal: AbortSignal): Promise<'hinted' | 'scheduled'> {
    for (;;) {
      const restMs = this.#dueMs() - this.#clock.monotonic();
      if (restMs <= 0 || signal.aborted) break;
      const rest = new LinkedAbort(signal);
      this.#wake = () => rest.abort();
      await this.#clock.sleep(restMs, rest.signal);
      this.#wake = () => {};
      rest.end();
    }
    this.#askedMs = this.#clock.monotonic();
    const why = this.#pending === undefined ? 'scheduled' : 'hinted';
    if (this.#pending === 'now') this.#tokens = Math.max(0, this.#tokens - 1);
    this.#pending = undefined;
    if (this.#scheduledMs <= this.#askedMs) this.#scheduledMs = Infinity;
    return why;
  }

  #dueMs(): number {
    const nowMs = this.#clock.monotonic();
    const more = Math.floor((nowMs - this.#refilledMs) / REFILL_MS);
    if (more > 0) {
      this.#tokens = Math.min(BURST, this.#tokens + more);
      this.#refilledMs += more * REFILL_MS;
    }
    const scheduled = Math.min(this.#scheduledMs, this.#askedMs + this.#reconcileMs);
    if (this.#pending === undefined) return scheduled;
    if (this.#pending === 'soon') return Math.min(scheduled, this.#askedMs + INTERVAL_MS);
    const paced = this.#tokens > 0 ? nowMs : this.#refilledMs + REFILL_MS;
    return Math.min(scheduled, paced);
  }
}
