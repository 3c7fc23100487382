import type { Clock } from '../../base/clock.ts';
import type { Admission, Role } from './admission.ts';
import type { Unanswered } from './callers.ts';

/** A right that ends is cut off from what is under way within this time. */
export const RECHECK_MS = 60_000;

export interface RecheckDeps {
  readonly clock: Clock;
  readonly ask: () => Promise<Admission | Unanswered>;
  /** What the exchange was admitted with. */
  readonly role: Role;
  /** Called once, when that role is not the caller's any more. */
  readonly cut: (verdict: Admission | Unanswered) => void;
  /** Aborts when the exchange is over. */
  readonly signal: AbortSignal;
}

/** Asks every minute whether the caller of a long exchange still has the right it began with. */
export async function recheck({ clock, ask, role, cut, signal }: RecheckDeps): Promise<void> {
  for (;;) {
    await clock.sleep(RECHECK_MS, signal);
    if (signal.aborted) return;
    const verdict = await ask();
    if (signal.aborted) return;
    // Who may drive may read.
    if ('role' in verdict && (verdict.role === role || verdict.role === 'drive')) continue;
    cut(verdict);
    return;
  }
}
