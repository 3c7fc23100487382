import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { openEvents } from '../opencode/events.ts';
import { randomSessionId } from '../opencode/ids.ts';
import { type Connection, exchange } from '../http/exchange.ts';

/** opencode answers an abort with `true`. */
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Pauses between the times it is said. `/global/event` may miss what is said in the first milliseconds after its headers,
 * even after `server.connected`: it subscribes later than it answers (seen on 1.18.33; `/event` does not).
 */
const SAY_AGAIN_AFTER_MS = [100, 500, 2000];

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
  const trying = new LinkedAbort(signal);
  void deps.clock.sleep(deps.deadlineMs, trying.signal).then(() => trying.abort());
  try {
    const events = await openEvents(listen, '/global/event', trying.signal);
    const sessionId = randomSessionId();
    const heard = new AbortController();
    // Hearing only ends the repetition: an answer under way is still read, so that its socket stays in use.
    trying.signal.addEventListener('abort', () => heard.abort(), { once: true });
    const speaking = keepSaying(speak, sessionId, deps, { quiet: heard.signal, cut: trying.signal });
    for await (const { type, properties } of events) {
      if (type === 'session.idle' && properties['sessionID'] === sessionId) {
        heard.abort();
        await speaking;
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

/** Aborts the session again and again until `quiet`. The event may come before the answer, and though the answer fails. */
async function keepSaying(
  speak: Connection,
  sessionId: string,
  { clock, deadlineMs }: ProofDeps,
  { quiet, cut }: { readonly quiet: AbortSignal; readonly cut: AbortSignal },
): Promise<void> {
  const limits = { timeoutMs: deadlineMs, maxBytes: MAX_ANSWER_BYTES, signal: cut };
  for (const pauseMs of [0, ...SAY_AGAIN_AFTER_MS]) {
    if (pauseMs > 0) await clock.sleep(pauseMs, quiet);
    if (quiet.aborted) return;
    await exchange(speak, `/session/${sessionId}/abort`, { method: 'POST' }, limits).catch(() => {});
  }
}
