import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { ChangeNotifier } from '../base/change-notifier.ts';
import { reasonOf } from '../base/errors.ts';

/** Opens the bus and gives its bytes; rejects where it cannot be opened. */
export type OpenBus = (signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

export interface BusDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A restarted daemon is back within a second; one that is not installed costs a failed connect every ten. */
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 10_000;
/** A bus that lived so long was fine; one that ends at once must not be opened in a tight loop. */
const FINE_AFTER_MS = 10_000;

/**
 * Notifies when the bus has been opened, when something comes on it, and when it ends. Opens it again, less and less
 * often, until the signal aborts. What it says is not read: netmaps of any size pass by and only the bytes are seen.
 * Silence is normal: a tailnet where nothing happens sends nothing.
 */
export async function followBus(
  open: OpenBus,
  notifier: ChangeNotifier,
  signal: AbortSignal,
  { clock, logger }: BusDeps,
): Promise<void> {
  let pauseMs = RETRY_FIRST_MS;
  let told: string | undefined;
  while (!signal.aborted) {
    const startMs = clock.now();
    let wasOpen = false;
    try {
      const bytes = await open(signal);
      told = undefined;
      wasOpen = true;
      notifier.notify();
      for await (const _ of bytes) notifier.notify();
    } catch (error) {
      const reason = reasonOf(error);
      if (!signal.aborted && reason !== told) logger.log('debug', 'the IPN bus is not open', { reason });
      told = reason;
    }
    if (signal.aborted) return;
    // However it ended: something happened to the daemon.
    if (wasOpen) notifier.notify();
    if (clock.now() - startMs >= FINE_AFTER_MS) pauseMs = RETRY_FIRST_MS;
    await clock.sleep(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, RETRY_MAX_MS);
  }
}
