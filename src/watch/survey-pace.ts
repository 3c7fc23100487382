import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';

/** `now`: a session began or ended, or asks for something. `soon`: something else that is shown may have changed. */
export type Urgency = 'now' | 'soon';

/** A turn that asks for permission at once, gets it and ends is four changes, of which each is shown at once. */
const BURST = 5;
/** Beyond the burst: a request that comes then is still shown within 150 ms. */
const REFILL_MS = 100;
/** For what is not urgent. */
const INTERVAL_MS = 1000;
/** What the events did not say is found out within the minute for which a state counts, an answer that takes its time included. */
const RECONCILE_MS = 45_000;
/** Servers that were found together are not asked together: each is asked up to so much earlier. */
const SPREAD_MS = 15_000;
/** After a survey that was not answered whole, doubled each time. */
const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 15_000;

/** When to ask one server: at once when something changed, then a few times a second while that goes on, and now and then anyway. */
export class SurveyPace {
  readonly #clock: Clock;
  readonly #reconcileMs: number;
  #tokens = BURST;
  /** When the last of the tokens came. */
  #refilledMs: number;
  #askedMs: number;
  #pending: Urgency | undefined;
  #scheduledMs = Infinity;
  #retryMs = RETRY_MS;
  #wake: () => void = () => {};

  /** @param share of the spread, 0 to 1 */
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

  /** Not later than in so much time. */
  within(ms: number): void {
    this.#scheduledMs = Math.min(this.#scheduledMs, this.#clock.monotonic() + ms);
    this.#wake();
  }

  /** The last survey was answered whole, or not. */
  answered(isWhole: boolean): void {
    if (isWhole) {
      this.#retryMs = RETRY_MS;
      return;
    }
    this.within(this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, LONGEST_RETRY_MS);
  }

  /** Resolves when the server is to be asked, or when `signal` aborts: because something may be different, or because it is time. */
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
