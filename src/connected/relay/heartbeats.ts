import type { Clock } from '../../base/clock.ts';
import type { RelayConnection } from './relay-connection.ts';

/** The relay removes a registration after 90 s without a line, so three heartbeats may be lost. */
const HEARTBEAT_MS = 20_000;
/** Two heartbeats without an answer; ssh's own keepalive takes as long. */
const REPLY_LIMIT_MS = 45_000;
/** After a wake-up most connections are dead; a live one answers within a round trip. */
const REPLY_LIMIT_AFTER_JUMP_MS = 10_000;
/** How often the clock is read: a sleep of the machine shows as a longer interval. */
const LOOK_MS = 5_000;
/** A running machine's timers are never this late. */
export const JUMP_MS = 10_000;
/** The loss of a connection that lasted this long does not count as one more failure in a row. */
const STABLE_MS = 60_000;

export interface Heartbeats {
  readonly clock: Clock;
  /** The other end of the connection, for the reason. */
  readonly place: string;
}

/**
 * Sends heartbeats until the connection is lost or its answers are missing. Resolves with the reason, and with whether the
 * connection was stable, or was lost because the machine slept.
 */
export async function sendHeartbeats(
  connection: RelayConnection,
  { clock, place }: Heartbeats,
): Promise<{ readonly reason: string; readonly wasStable: boolean }> {
  const over = new AbortController();
  const lost = connection.lost.finally(() => over.abort());
  let upMs = 0;
  let sinceHeartbeatMs = 0;
  let silentMs = 0;
  let limitMs = REPLY_LIMIT_MS;
  let replies = 0;
  let hasSlept = false;
  while (!over.signal.aborted) {
    const beforeMs = clock.now();
    await clock.sleep(LOOK_MS, over.signal);
    const passedMs = Math.max(0, clock.now() - beforeMs);
    hasSlept = passedMs >= LOOK_MS + JUMP_MS;
    if (over.signal.aborted) break;
    upMs += passedMs;
    if (connection.replies !== replies || hasSlept) {
      limitMs = hasSlept ? REPLY_LIMIT_AFTER_JUMP_MS : REPLY_LIMIT_MS;
      replies = connection.replies;
      silentMs = 0;
    } else {
      silentMs += passedMs;
    }
    if (silentMs >= limitMs) {
      void connection.abandon(`${place} has not answered for ${Math.round(silentMs / 1000)} s`);
      break;
    }
    sinceHeartbeatMs += passedMs;
    if (sinceHeartbeatMs < HEARTBEAT_MS) continue;
    sinceHeartbeatMs = 0;
    connection.heartbeat();
  }
  const reason = await lost;
  // While the short limit is set, no answer has come since the machine slept.
  return { reason, wasStable: upMs >= STABLE_MS || hasSlept || limitMs !== REPLY_LIMIT_MS };
}
