import { type ListedSession, serviceSessionsOf } from './answers.ts';

/** Enough for most people, at some 400 bytes each. */
export const LISTED_SESSIONS = 100;
/** Well below 1 MB a page. */
const OLDER_SESSIONS = 500;
/** 5,000 sessions; the most that was reported of one person is 269. */
const MAX_OLDER_PAGES = 10;

export const LATEST_SERVICE_SESSIONS = `/api/session?limit=${LISTED_SESSIONS}`;

interface SessionPage {
  readonly sessions: readonly ListedSession[];
  /** There are no older ones. */
  readonly isLast: boolean;
}

/** The pages of an OpenCode 2's sessions behind `page`, newest first. Rejects as `ask` does. */
export async function* olderSessions(
  page: unknown,
  ask: (path: string) => Promise<unknown>,
): AsyncGenerator<SessionPage> {
  let next = cursorOf(page);
  for (let count = 0; count < MAX_OLDER_PAGES && next !== undefined; count += 1) {
    const older = await ask(`/api/session?limit=${OLDER_SESSIONS}&cursor=${encodeURIComponent(next)}`);
    const sessions = serviceSessionsOf(older);
    if (sessions === undefined) return;
    next = cursorOf(older);
    yield { sessions, isLast: next === undefined };
  }
}

/** The last page has a cursor too, which leads to an empty page. */
function cursorOf(page: unknown): string | undefined {
  const { data, cursor } = (page ?? {}) as { readonly data?: unknown; readonly cursor?: { readonly next?: unknown } };
  const isEmpty = !Array.isArray(data) || data.length === 0;
  return isEmpty || typeof cursor?.next !== 'string' ? undefined : cursor.next;
}
