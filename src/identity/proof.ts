import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { openEvents } from '../opencode/events.ts';
import { randomSessionId } from '../opencode/ids.ts';
import { type Connection, exchange } from '../http/exchange.ts';

/** The answer is only `true`. */
const MAX_ANSWER_BYTES = 64 * 1024;

/** `/global/event` subscribes some milliseconds after its headers and `server.connected`, and misses earlier events (1.18.33; `/event` does not). */
const REPEAT_AFTER_MS = [100, 500, 2000];

export interface ProofDeps {
  readonly clock: Clock;
  /** For the whole proof. */
  readonly deadlineMs: number;
}

/**
 * Whether two connections lead to one OpenCode 1: aborting a session with a random id makes that process alone emit `session.idle`
 * with the id, on every event stream. True is proof, false is only silence. Never rejects.
 */
export async function isSameByAbort(
  listen: Connection,
  abort: Connection,
  deps: ProofDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const trying = new LinkedAbort(signal);
  void deps.clock.sleep(deps.deadlineMs, trying.signal).then(() => trying.abort());
  try {
    const events = await openEvents(listen, '/global/event', trying.signal);
    const sessionId = randomSessionId();
    const received = new AbortController();
    // The event ends the repetition, but not a request under way, so that its socket can be reused.
    trying.signal.addEventListener('abort', () => received.abort(), { once: true });
    const aborting = keepAborting(abort, sessionId, deps, { until: received.signal, signal: trying.signal });
    for await (const { type, properties } of events) {
      if (type === 'session.idle' && properties['sessionID'] === sessionId) {
        received.abort();
        await aborting;
        return true;
      }
    }
    return false;
  } catch {
    return false;
  } finally {
    trying.end();
  }
}

/** Ignores the answers: the event may come before the answer, or although the request failed. */
async function keepAborting(
  connection: Connection,
  sessionId: string,
  { clock, deadlineMs }: ProofDeps,
  { until, signal }: { readonly until: AbortSignal; readonly signal: AbortSignal },
): Promise<void> {
  const limits = { timeoutMs: deadlineMs, maxBytes: MAX_ANSWER_BYTES, signal };
  for (const pauseMs of [0, ...REPEAT_AFTER_MS]) {
    if (pauseMs > 0) await clock.sleep(pauseMs, until);
    if (until.aborted) return;
    await exchange(connection, `/session/${sessionId}/abort`, { method: 'POST' }, limits).catch(() => {});
  }
}
