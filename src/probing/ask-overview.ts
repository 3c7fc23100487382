import { type AtRest, atRest } from '../model/at-rest.ts';
import {
  doingOf,
  hasParent,
  hasEnded,
  isSessionId,
  newestMessageOf,
  permissionsOf,
  questionsOf,
  type ListedSession,
  sessionsOf,
} from './answers.ts';
import { OVERVIEW_PARTS, type OverviewPart, type SessionSummary, type Waiting } from '../model/instance.ts';
import type { OtherDirectory, OverviewParts, RecentDirectories } from './overview.ts';
import {
  ask as askWhole,
  askDated,
  type DirectoryLook,
  isOfDirectory,
  isTimeout,
  type Look,
  type ProbeDeps,
  type ProbeTask,
} from './probe-task.ts';

/** Without what is left out of long strings, such as the whole diff that a permission request asks about. */
const MAX_BYTES: Record<OverviewPart, number> = {
  status: 256 * 1024,
  permissions: 1024 * 1024,
  questions: 256 * 1024,
  session: 1024 * 1024,
};

/** More of a title, a command or a diff than an overview shows; what is cut says so. */
const MAX_STRING_BYTES = 4096;

const ask: typeof askWhole = (task, deps, path, maxBytes) => askWhole(task, deps, path, maxBytes, MAX_STRING_BYTES);

/** One message with its parts; a longer one is not read. */
const MAX_MESSAGE_BYTES = 2 * 1024 * 1024;

/** Waiting requests that each survey looks into; further ones are shown as listed. */
const MAX_CHECKED = 8;

/** Sessions of waiting requests that are looked up; further requests are shown without their session. */
const MAX_FAMILIES = 3;

/** Some 500 bytes each; the latest of the server's own directory is nearly always among so many. */
const LISTED_SESSIONS = 50;

/** Asked for where all of those are recent: a busy agent's sub-agents must not push other directories off the list. A quarter of what a body may be. */
const MANY_SESSIONS = 500;

/** Of its own directory alone, which lists archived ones too. */
const OWN_SESSIONS = 10;

/** Asking about a directory loads its plugins and MCP servers. Where somebody worked just now they are loaded already. */
export const RECENT_MS = 10 * 60_000;

/** Each costs one request in every survey, and two more while something runs there. */
const MAX_RECENT = 32;

/** The sessions of other directories come with the list for the server's own. */
const PARTS_ELSEWHERE = OVERVIEW_PARTS.filter((part) => part !== 'session');

const ROUTES = { status: '/session/status', permissions: '/permission', questions: '/question' } as const;

/** One look, and whether more time would have found more. */
interface Asking {
  readonly task: ProbeTask;
  readonly deps: ProbeDeps;
  timedOut: boolean;
}

/**
 * What a server is doing in its own directory, and in those of `task.elsewhere`. What waits is busy, so permissions and questions are
 * asked only where something runs or the status is not known: an idle directory costs two requests. Rejects for nothing but a bug:
 * a part without an answer is `missing`.
 */
export async function askOverview(
  task: ProbeTask,
  deps: ProbeDeps,
  directory: string,
): Promise<Pick<Look, 'learnt' | 'missing' | 'timedOut' | 'elsewhere'>> {
  const asking: Asking = { task, deps, timedOut: false };
  const { parts, known, elsewhere = [] } = task;
  const listed = parts.includes('session') ? attempt(asking, askSessions(asking, directory)) : undefined;
  const [own, ...others] = await Promise.all([
    askDirectory(asking, undefined, { parts, known, listed }),
    ...elsewhere.map((other) => askElsewhere(asking, other)),
  ]);
  const found = new Map(elsewhere.map(({ directory: other }, index) => [other, others[index] ?? own]));
  return { ...own, timedOut: asking.timedOut, ...(found.size > 0 && { elsewhere: found }) };
}

/** Who holds the port may have become another process with the same own directory since it was asked last. */
async function askElsewhere(asking: Asking, other: OtherDirectory): Promise<DirectoryLook> {
  const { task, deps } = asking;
  const { directory, witness, isListed, session, known } = other;
  const isTheirs =
    isListed ||
    (witness !== undefined &&
      isSessionId(witness) &&
      (await attempt(asking, isOfDirectory(ask(task, deps, `/session/${witness}`, MAX_BYTES.session), directory))));
  if (isTheirs !== true)
    return { learnt: {}, missing: PARTS_ELSEWHERE, ...(isTheirs === false && { isForeign: true }) };
  const found = await askDirectory(asking, directory, {
    parts: PARTS_ELSEWHERE,
    known,
    listed: Promise.resolve(session && { session }),
  });
  const isAnswered = Object.keys(found.learnt).length > 0;
  return isAnswered && witness !== undefined ? { ...found, learnt: { ...found.learnt, witness } } : found;
}

/** What is asked of one directory, and what is known of it. */
interface Question {
  readonly parts: readonly OverviewPart[];
  readonly known: OverviewParts | undefined;
  readonly listed: Promise<Pick<OverviewParts, 'session' | 'recent'> | undefined> | undefined;
}

/** `directory` is undefined for the server's own, which opencode takes where none is named. */
async function askDirectory(
  asking: Asking,
  directory: string | undefined,
  { parts, known, listed }: Question,
): Promise<DirectoryLook> {
  const [work, sessions] = await Promise.all([askWork(asking, directory, parts), listed]);
  let learnt: OverviewParts = { ...work, ...sessions };
  learnt = await withoutLeftovers(asking, learnt);
  learnt = await withFamilies(asking, learnt, known);
  // What runs in another process of the same home looks interrupted here, where nothing was seen to run.
  const isOurs = directory === undefined || known !== undefined;
  if (isOurs) learnt = await withRest(asking, directory, learnt, known);
  return { learnt, missing: parts.filter((part) => learnt[part] === undefined) };
}

async function askWork(
  asking: Asking,
  directory: string | undefined,
  parts: readonly OverviewPart[],
): Promise<OverviewParts> {
  const askPart = async <T>(
    part: keyof typeof ROUTES,
    read: (answer: unknown) => T | undefined,
  ): Promise<T | undefined> =>
    parts.includes(part)
      ? await attempt(asking, ask(asking.task, asking.deps, pathOf(part, directory), MAX_BYTES[part]).then(read))
      : undefined;
  const status = await askPart('status', doingOf);
  const isIdle = status?.running.length === 0;
  const waits = async (part: 'permissions' | 'questions', read: typeof permissionsOf) =>
    isIdle && parts.includes(part) ? [] : await askPart(part, read);
  const [permissions, questions] = await Promise.all([
    waits('permissions', permissionsOf),
    waits('questions', questionsOf),
  ]);
  return { ...(status && { status }), ...(permissions && { permissions }), ...(questions && { questions }) };
}

/** Undefined where there is no answer, or none of opencode's form. */
async function attempt<T>(asking: Asking, answer: Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    asking.timedOut ||= isTimeout(error, asking.task);
    return undefined;
  }
}

/**
 * The latest session of the server's own directory, and the directories of its latest sessions, of any project. A node service
 * that lets its caller only read refuses the list of all sessions; then only the own directory is known.
 */
async function askSessions(
  { task, deps }: Asking,
  directory: string,
): Promise<Pick<OverviewParts, 'session' | 'recent'> | undefined> {
  let limit = LISTED_SESSIONS;
  let { all, nowMs } = await listSessions(task, deps, limit);
  if (all?.length === limit && nowMs - (all.at(-1)?.updatedMs ?? 0) < RECENT_MS) {
    limit = MANY_SESSIONS;
    all = (await listSessions(task, deps, limit)).all ?? all;
  }
  const recent = recentOf(all ?? [], directory, nowMs);
  const session = all?.find((one) => one.directory === directory && isLatest(one));
  if (session !== undefined || (all !== undefined && all.length < limit))
    return { session: session === undefined ? null : summaryOf(session), recent };
  const path = `${inDirectory('/session', directory)}&roots=true&limit=${OWN_SESSIONS}`;
  const own = sessionsOf(await ask(task, deps, path, MAX_BYTES.session));
  const latest = own?.find(isLatest);
  return own && { session: latest === undefined ? null : summaryOf(latest), recent };
}

function isLatest({ isChild, isArchived }: ListedSession): boolean {
  return !isChild && !isArchived;
}

async function listSessions(
  task: ProbeTask,
  deps: ProbeDeps,
  limit: number,
): Promise<{ readonly all: ReturnType<typeof sessionsOf>; readonly nowMs: number }> {
  const listing = askDated(task, deps, `/experimental/session?limit=${limit}`, MAX_BYTES.session, MAX_STRING_BYTES);
  const listed = await listing.catch((error: unknown) => {
    if (isTimeout(error, task)) throw error;
    return undefined;
  });
  return { all: listed && sessionsOf(listed.body), nowMs: listed?.dateMs ?? deps.clock.now() };
}

function recentOf(sessions: NonNullable<ReturnType<typeof sessionsOf>>, own: string, nowMs: number): RecentDirectories {
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

function summaryOf({ id, title, directory, updatedMs }: SessionSummary): SessionSummary {
  return { id, title, directory, updatedMs };
}

function pathOf(part: keyof typeof ROUTES, directory: string | undefined): string {
  return directory === undefined ? ROUTES[part] : inDirectory(ROUTES[part], directory);
}

/**
 * Without what an abort left behind: opencode (1.18.33) lists such a request on, and it would show again as soon as its session runs.
 * The message that asked has ended.
 */
async function withoutLeftovers({ task, deps }: Asking, learnt: OverviewParts): Promise<OverviewParts> {
  const running = new Set(learnt.status?.running);
  const left = new Set<string>();
  await Promise.all(
    [...(learnt.permissions ?? []), ...(learnt.questions ?? [])]
      .filter(({ sessionId, messageId }) => messageId !== undefined && running.has(sessionId))
      .slice(0, MAX_CHECKED)
      .map(async ({ id, sessionId, messageId }) => {
        const path = `/session/${sessionId}/message/${messageId}`;
        const message = await ask(task, deps, path, MAX_MESSAGE_BYTES).catch(() => undefined);
        if (hasEnded(message)) left.add(id);
      }),
  );
  if (left.size === 0) return learnt;
  const standing = (all: readonly Waiting[]): readonly Waiting[] => all.filter(({ id }) => !left.has(id));
  return {
    ...learnt,
    ...(learnt.permissions && { permissions: standing(learnt.permissions) }),
    ...(learnt.questions && { questions: standing(learnt.questions) }),
  };
}

/** Finds out which of the requests that wait are a sub-agent's, which carry its own session's id. Asked once for each request. */
async function withFamilies(
  { task, deps }: Asking,
  learnt: OverviewParts,
  known: OverviewParts | undefined,
): Promise<OverviewParts> {
  const running = learnt.status?.running;
  const before = [...(known?.permissions ?? []), ...(known?.questions ?? [])];
  const waiting = [...(learnt.permissions ?? []), ...(learnt.questions ?? [])];
  const isChild = new Map<string, boolean>();
  for (const { sessionId } of waiting) {
    const known = before.find((one) => one.sessionId === sessionId)?.ofSubAgent;
    if (known !== undefined) isChild.set(sessionId, known);
  }
  const ids = [...new Set(waiting.map(({ sessionId }) => sessionId))]
    .filter((id) => !isChild.has(id) && isSessionId(id) && (running === undefined || running.includes(id)))
    .slice(0, MAX_FAMILIES);
  await Promise.all(
    ids.map(async (id) => {
      const session = await ask(task, deps, `/session/${id}`, MAX_BYTES.session).catch(() => undefined);
      if (session !== undefined) isChild.set(id, hasParent(session));
    }),
  );
  if (isChild.size === 0) return learnt;
  const named = (all: readonly Waiting[]): readonly Waiting[] =>
    all.map((one) => {
      const ofSubAgent = isChild.get(one.sessionId);
      return ofSubAgent === undefined ? one : { ...one, ofSubAgent };
    });
  return {
    ...learnt,
    ...(learnt.permissions && { permissions: named(learnt.permissions) }),
    ...(learnt.questions && { questions: named(learnt.questions) }),
  };
}

/**
 * Finds out how the last turn of a session that does not run has ended. One that was ended stays so until the session is
 * another (opencode 1.18.33 gives it a new time with each message), so that this costs a request a turn, and not one a look.
 */
async function withRest(
  { task, deps }: Asking,
  directory: string | undefined,
  learnt: OverviewParts,
  known: OverviewParts | undefined,
): Promise<OverviewParts> {
  const { status, session } = learnt;
  if (!session || status === undefined || status.running.includes(session.id)) return learnt;
  const standing = (rest: AtRest): OverviewParts => ({ ...learnt, session: { ...session, rest } });
  const before = known?.session;
  if (before?.id === session.id && before.updatedMs === session.updatedMs && before.rest?.state === 'idle')
    return standing(before.rest);
  try {
    const page = await ask(task, deps, `/session/${session.id}/message?limit=1`, MAX_MESSAGE_BYTES);
    const rest = atRest(newestMessageOf(page), deps.clock.now());
    if (rest.state === 'interrupted') {
      // It may have begun after the status was read.
      const now = doingOf(await ask(task, deps, pathOf('status', directory), MAX_BYTES.status));
      if (now?.running.includes(session.id) === true) return { ...learnt, status: now };
    }
    return standing(rest);
  } catch (error) {
    return isTimeout(error, task) ? learnt : standing({ state: 'idle' });
  }
}

function inDirectory(route: string, directory: string): string {
  return `${route}?directory=${encodeURIComponent(directory)}`;
}
