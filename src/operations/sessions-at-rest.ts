import pLimit from 'p-limit';
import type { OpencodeApi } from '../opencode/api.ts';
import type { Session, SessionStatus } from '../opencode/schema.ts';
import { sessionState, type SessionState } from './session-state.ts';

/** At one instance: each answer is a message with all its parts. */
const ASKED_TOGETHER = 6;

/**
 * How sessions stand that were not running when their status was asked, by id: idle, starting, or interrupted, as their
 * newest messages tell. One that cannot be read counts as idle. `askStatuses`: what runs now, for those that began since.
 */
export async function sessionsAtRest(
  api: Pick<OpencodeApi, 'messages'>,
  sessions: readonly Session[],
  askStatuses: () => Promise<ReadonlyMap<string, SessionStatus>>,
  nowMs: number,
): Promise<ReadonlyMap<string, SessionState>> {
  const limit = pLimit(ASKED_TOGETHER);
  const states = new Map<string, SessionState>();
  await Promise.all(
    sessions.map(async ({ id }) => {
      const page = await limit(() => api.messages(id, { limit: 1 })).catch(() => undefined);
      states.set(id, sessionState(undefined, { newest: page?.messages.at(-1), nowMs }));
    }),
  );
  const open = [...states].filter(([, { state }]) => state === 'interrupted');
  if (open.length > 0) {
    const statuses = await askStatuses();
    for (const [id] of open) if (statuses.has(id)) states.set(id, sessionState(statuses.get(id), { nowMs }));
  }
  return states;
}
