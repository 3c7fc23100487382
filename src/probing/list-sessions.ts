import { fieldsOf } from '../base/errors.ts';
import type { SessionSummary } from '../model/instance.ts';
import { type ListedSession, serviceSessionsOf, sessionsOf } from './answers.ts';
import type { OverviewParts, RecentDirectories } from './overview.ts';
import type { ProbeRequests } from './probe-requests.ts';

const MAX_BYTES = 1024 * 1024;

/** Some 500 bytes each. The latest session of the server's own directory is nearly always among them. */
const LISTED_SESSIONS = 50;

/** Listed instead if all of those are recent: a busy agent's sub-agents must not hide other directories. A quarter of `MAX_BYTES`. */
const MANY_SESSIONS = 500;

/** Of the own directory alone; some may be archived. */
const OWN_SESSIONS = 10;

/** Asking about a directory loads its plugins and MCP servers. After work in the last minutes they are loaded already. */
export const RECENT_MS = 10 * 60_000;

/** Each costs one request in every survey, and two more while something runs there. */
const MAX_RECENT = 32;

/**
 * Lists the latest session of an OpenCode 1's own directory, and the directories of its latest sessions in any project. A node
 * service refuses that list to a caller that may only read; then only the own directory is known.
 */
export async function askSessions(
  requests: ProbeRequests,
  directory: string,
): Promise<Pick<OverviewParts, 'session' | 'recent'> | undefined> {
  let limit = LISTED_SESSIONS;
  let { all, nowMs } = await listLatest(requests, limit);
  if (all?.length === limit && nowMs - (all.at(-1)?.updatedMs ?? 0) < RECENT_MS) {
    limit = MANY_SESSIONS;
    all = (await listLatest(requests, limit)).all ?? all;
  }
  const recent = recentOf(all ?? [], directory, nowMs);
  const session = all?.find((one) => one.directory === directory && isPersons(one));
  if (session !== undefined || (all !== undefined && all.length < limit))
    return { session: summaryOf(session), recent };
  const path = `/session?directory=${encodeURIComponent(directory)}&roots=true&limit=${OWN_SESSIONS}`;
  const own = sessionsOf(await requests.work(path, MAX_BYTES));
  return own && { session: summaryOf(own.find(isPersons)), recent };
}

/** `all` is undefined if the list is refused; `nowMs` is by the server's clock. */
async function listLatest(
  requests: ProbeRequests,
  limit: number,
): Promise<{ readonly all?: ReturnType<typeof sessionsOf>; readonly nowMs: number }> {
  try {
    const { body, nowMs } = await requests.datedWork(`/experimental/session?limit=${limit}`, MAX_BYTES);
    return { all: sessionsOf(body), nowMs };
  } catch (error) {
    if (requests.isTimeout(error)) throw error;
    return { nowMs: requests.now() };
  }
}

function recentOf(sessions: readonly ListedSession[], own: string, nowMs: number): RecentDirectories {
  const found = new Map<string, ListedSession>();
  for (const session of sessions) {
    if (session.directory === own || nowMs - session.updatedMs > RECENT_MS) continue;
    const before = found.get(session.directory);
    if (before === undefined || (before.isChild && !session.isChild)) found.set(session.directory, session);
  }
  const ownProject = sessions.find(({ directory }) => directory === own)?.projectId;
  return {
    sessions: new Map([...found].slice(0, MAX_RECENT)),
    more: Math.max(0, found.size - MAX_RECENT),
    ...(ownProject !== undefined && { ownProject }),
  };
}

/** Whether a session is neither a sub-agent's nor archived. */
export function isPersons({ isChild, isArchived }: ListedSession): boolean {
  return !isChild && !isArchived;
}

/** A session without the fields that only a listing needs; null without a session. */
export function summaryOf(session: SessionSummary | undefined): SessionSummary | null {
  if (session === undefined) return null;
  const { id, title, directory, updatedMs } = session;
  return { id, title, directory, updatedMs };
}

/** Enough for most people, at some 400 bytes each. */
export const LISTED_SERVICE_SESSIONS = 100;
/** Well below 1 MB a page. */
const OLDER_SESSIONS = 500;
/** 5,000 sessions; the most that a user has reported is 269. */
const MAX_OLDER_PAGES = 10;

export const LATEST_SERVICE_SESSIONS = `/api/session?limit=${LISTED_SERVICE_SESSIONS}`;

interface SessionPage {
  readonly sessions: readonly ListedSession[];
  /** There are no older ones. */
  readonly isLast: boolean;
}

/** The pages after `page` of an OpenCode 2's sessions, newest first. Rejects as `ask` does. */
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
  const { data, cursor } = fieldsOf(page);
  const { next } = fieldsOf(cursor);
  const isEmpty = !Array.isArray(data) || data.length === 0;
  return isEmpty || typeof next !== 'string' ? undefined : next;
}
