import pLimit from 'p-limit';
import type { OpencodeApi } from '../../opencode/api.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import { sessionState, type SessionState } from './session-state.ts';

/** Each answer is a message with all its parts. */
const ASKED_TOGETHER = 6;
/** Each asks every other instance of the machine and project; older sessions are unlikely to run there. */
const OWNERS_SOUGHT = 3;

export interface AtRestDeps {
  readonly api: Pick<OpencodeApi, 'messages'>;
  /** Asked again for sessions that began meanwhile. */
  readonly statuses: () => Promise<ReadonlyMap<string, SessionStatus>>;
  /** The other instance that works on the session, since processes of one home share sessions. */
  readonly otherProcessOf?: (session: Session) => Promise<string | undefined>;
  readonly nowMs: number;
}

/**
 * The states, by id, of sessions whose status said that they do not run: idle, starting or interrupted by their newest messages; busy
 * if one runs after all, here or in another process. One that cannot be read counts as idle.
 *
 * @param sessions latest first
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

export function busyIn(elsewhere: string): SessionState {
  return { state: 'busy', reason: `${elsewhere} works on it` };
}
