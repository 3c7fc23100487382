import pLimit from 'p-limit';
import type { OpencodeApi } from '../../opencode/api.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import { sessionState, type SessionState } from './session-state.ts';

/** At one instance: each answer is a message with all its parts. */
const ASKED_TOGETHER = 6;
/** Each asks every other instance of the machine and project; of the older ones nothing is likely to work. */
const OWNERS_SOUGHT = 3;

export interface AtRestDeps {
  readonly api: Pick<OpencodeApi, 'messages'>;
  /** What runs now, for those that began since. */
  readonly statuses: () => Promise<ReadonlyMap<string, SessionStatus>>;
  /** The name of another instance that works on it: processes of one home share sessions. */
  readonly otherProcessOf?: (session: Session) => Promise<string | undefined>;
  readonly nowMs: number;
}

/**
 * How sessions stand that were not running when their status was asked, by id: idle, starting, or interrupted, as their
 * newest messages tell; busy where they run after all, here or in `ownerOf`. One that cannot be read counts as idle.
 *
 * @param sessions the latest first
 */
export async function sessionsAtRest(
  sessions: readonly Session[],
  { api, statuses, otherProcessOf, nowMs }: AtRestDeps,
): Promise<ReadonlyMap<string, SessionState>> {
  const limit = pLimit(ASKED_TOGETHER);
  const states = new Map<string, SessionState>();
  await Promise.all(
    sessions.map(async ({ id }) => {
      const page = await limit(() => api.messages(id, { limit: 1 })).catch(() => undefined);
      states.set(id, sessionState(undefined, { newest: page?.messages.at(-1), nowMs }));
    }),
  );
  const isOpen = ({ id }: Session): boolean => states.get(id)?.state === 'interrupted';
  if (!sessions.some(isOpen)) return states;
  const running = await statuses();
  for (const { id } of sessions.filter(isOpen))
    if (running.has(id)) states.set(id, sessionState(running.get(id), { nowMs }));
  await Promise.all(
    sessions
      .filter(isOpen)
      .slice(0, OWNERS_SOUGHT)
      .map(async (session) => {
        const elsewhere = await otherProcessOf?.(session);
        if (elsewhere !== undefined) states.set(session.id, busyIn(elsewhere));
      }),
  );
  return states;
}

/** Of a session that runs in another process of the same home. */
export function busyIn(elsewhere: string): SessionState {
  return { state: 'busy', reason: `${elsewhere} works on it` };
}
