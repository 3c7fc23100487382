import type { Clock } from '../clock.ts';
import { openEvents } from '../opencode/events.ts';
import { randomSessionId } from '../opencode/ids.ts';
import { type Connection, exchange } from '../opencode/transport.ts';

/** opencode answers an abort with `true`. */
const MAX_ANSWER_BYTES = 64 * 1024;

export interface ProofDeps {
  readonly clock: Clock;
  /** For connecting, asking and hearing together. */
  readonly deadlineMs: number;
}

/**
 * Whether two ways lead to one opencode process: aborting a session that nobody has, by one way, makes that process say
 * `session.idle` with that id to every listener, and no other process. True is proof; false is only silence. Never rejects.
 */
export async function proveSame(
  listen: Connection,
  speak: Connection,
  deps: ProofDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const trying = new AbortController();
  const abort = (): void => trying.abort();
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  void deps.clock.sleep(deps.deadlineMs, trying.signal).then(abort);
  try {
    const events = await openEvents(listen, '/global/event', trying.signal);
    const sessionId = randomSessionId();
    const limits = { timeoutMs: deps.deadlineMs, maxBytes: MAX_ANSWER_BYTES, signal: trying.signal };
    // The event may come before the answer, and the answer may fail where the event still comes.
    const asked = exchange(speak, `/session/${sessionId}/abort`, { method: 'POST' }, limits).catch(() => {});
    for await (const { type, properties } of events) {
      if (type === 'session.idle' && properties['sessionID'] === sessionId) {
        await asked;
        return true;
      }
    }
    return false;
  } catch {
    return false;
  } finally {
    signal.removeEventListener('abort', abort);
    abort();
  }
}
