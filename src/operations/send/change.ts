import { mayHaveActed, RequestError } from '../../http/request-error.ts';
import type { Session } from '../../opencode/schema.ts';
import { OperationError } from '../answer.ts';
import type { Runtime } from '../runtime.ts';

/** How long the effect of a change is looked for: opencode's shows within a fraction of a second, that of a request which a gateway has given up comes seconds later. */
const LIMIT_MS = 5_000;
const PAUSE_MS = 100;

/** A change, and where its effect shows. */
export interface Change {
  readonly make: () => Promise<unknown>;
  readonly shows: () => Promise<boolean>;
  readonly limitMs?: number;
  readonly signal: AbortSignal;
}

/** What is known of a change in the end. Its effect shows where neither `unseen` is set. */
export interface Made {
  /** No answer of opencode's came to it: what shows may be somebody else's doing, and what does not show may come yet. */
  readonly doubt?: RequestError;
  /** Its effect does not show, or (an error) cannot be looked for. */
  readonly unseen?: true | RequestError;
}

/**
 * Makes a change and looks until its effect shows: what opencode answers says little of it, what a proxy answers says nothing.
 * @throws {RequestError | CallOver} only where the change was not made
 */
export async function makeChange({ clock }: Pick<Runtime, 'clock'>, change: Change): Promise<Made> {
  const { make, shows, limitMs = LIMIT_MS, signal } = change;
  const made = await orDoubt(make());
  const doubt = made instanceof RequestError ? { doubt: made } : {};
  const until = clock.monotonic() + limitMs;
  for (;;) {
    const seen = await shows().catch((error: unknown) => {
      if (!(error instanceof RequestError)) throw error;
      return error;
    });
    if (seen === true) return doubt;
    if (clock.monotonic() >= until || signal.aborted) return { ...doubt, unseen: seen === false || seen };
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** What a change came to, or the error of one that may have been made all the same. */
async function orDoubt<T>(change: Promise<T>): Promise<T | RequestError> {
  try {
    return await change;
  } catch (error) {
    if (error instanceof RequestError && mayHaveActed(error)) return error;
    throw error;
  }
}

/** A session that was made. @throws {OperationError} it is unknown whether it was made; a second call could make two */
export async function madeSession(name: string, making: Promise<Session>): Promise<Session> {
  const made = await orDoubt(making);
  if (!(made instanceof RequestError)) return made;
  throw new OperationError(
    ({ sessions, again }) =>
      `${name}: it is unknown whether the session was made: opencode's answer did not come (${made.message}). See ${sessions} before you ${again}: it may be there, or come yet.`,
  );
}

/** `beta accepted it, but it still runs` of a change that does not show, and what to do. */
export function unseenLine(name: string, { doubt, unseen }: Made, still: string): string {
  const looked = unseen instanceof RequestError ? `how it stands now cannot be read (${unseen.message})` : still;
  if (doubt === undefined) return `${name} accepted it, but ${looked}`;
  return `no answer of opencode's came (${doubt.message}), and ${looked}; it may take effect yet`;
}
