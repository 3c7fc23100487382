import { mayHaveActed, RequestError } from '../../http/request-error.ts';
import type { Session } from '../../opencode/schema.ts';
import { OperationError } from '../answer.ts';
import type { Runtime } from '../runtime.ts';

/** How long to wait for an effect: opencode's shows within a fraction of a second, or seconds later if a gateway has given up on the request. */
const LIMIT_MS = 5_000;
const PAUSE_MS = 100;

export interface Change {
  readonly make: () => Promise<unknown>;
  /** Whether its effect can be seen. */
  readonly shows: () => Promise<boolean>;
  readonly limitMs?: number;
  readonly signal: AbortSignal;
}

/** The result of a change; its effect shows if `unseen` is absent. */
export interface Made {
  /** opencode's own answer is missing: an effect may be somebody else's, and a missing effect may still come. */
  readonly doubt?: RequestError;
  /** The effect does not show; an error if it cannot be checked. */
  readonly unseen?: true | RequestError;
}

/**
 * Makes a change and waits until its effect shows: opencode's answer proves little, a proxy's proves nothing.
 * @throws {RequestError | CallOver} only if the change was not made
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

/** The change's answer, or its error if it may have been made all the same. */
async function orDoubt<T>(change: Promise<T>): Promise<T | RequestError> {
  try {
    return await change;
  } catch (error) {
    if (error instanceof RequestError && mayHaveActed(error)) return error;
    throw error;
  }
}

/** The created session. @throws {OperationError} it is unknown whether it was created; a second call could create two */
export async function madeSession(name: string, making: Promise<Session>): Promise<Session> {
  const made = await orDoubt(making);
  if (!(made instanceof RequestError)) return made;
  throw new OperationError(
    ({ sessions, again }) =>
      `${name}: it is unknown whether the session was made: opencode's answer did not come (${made.message}). See ${sessions} before you ${again}: it may be there, or still come.`,
  );
}

/** `beta accepted it, but it still runs`: describes a change whose effect does not show. */
export function unseenLine(name: string, { doubt, unseen }: Made, still: string): string {
  const now = unseen instanceof RequestError ? `its state cannot be read (${unseen.message})` : still;
  if (doubt === undefined) return `${name} accepted it, but ${now}`;
  return `opencode's answer did not come (${doubt.message}), and ${now}; it may still take effect`;
}
