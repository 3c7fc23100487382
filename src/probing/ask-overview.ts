import { type AtRest, atRest } from '../model/at-rest.ts';
import { OVERVIEW_PARTS, type OverviewPart, type Waiting } from '../model/instance.ts';
import { serverStatusOf, hasEnded, hasParent, newestMessageOf, permissionsOf, questionsOf } from './answers.ts';
import { askSessions } from './list-sessions.ts';
import type { OtherDirectory, OverviewParts } from './overview.ts';
import type { ProbeRequests } from './probe-requests.ts';
import { type DirectoryLook, isOfDirectory, type Look, type ProbeTask } from './probe-task.ts';

/** After long strings are cut, such as the diff of a permission request. */
const MAX_BYTES = { status: 256 * 1024, permissions: 1024 * 1024, questions: 256 * 1024, session: 1024 * 1024 };

/** One message with its parts; a longer one is not read. */
const MAX_MESSAGE_BYTES = 2 * 1024 * 1024;

/** Waiting requests that each survey checks; further ones are shown as listed. */
const MAX_CHECKED = 8;

/** Sessions of waiting requests that are looked up; further requests are shown without their session. */
const MAX_FAMILIES = 3;

/** The session list of the own directory already has the sessions of other directories. */
const PARTS_ELSEWHERE = OVERVIEW_PARTS.filter((part) => part !== 'session');

const ROUTES = { status: '/session/status', permissions: '/permission', questions: '/question' } as const;

/**
 * Asks an OpenCode 1 what it does in its own directory, and in those of `task.elsewhere`. A waiting session is busy, so permissions and
 * questions are asked only if something runs or the status is unknown: an idle directory costs two requests. Rejects only for a bug:
 * parts without an answer are `missing`.
 */
export async function askOverview(
  requests: ProbeRequests,
  { parts, known, elsewhere = [] }: ProbeTask,
  directory: string,
): Promise<Pick<Look, 'learnt' | 'missing' | 'timedOut' | 'elsewhere'>> {
  const listed = parts.includes('session') ? requests.attempt(askSessions(requests, directory)) : undefined;
  const [own, others] = await Promise.all([
    askDirectory(requests, undefined, { parts, known, listed }),
    Promise.all(elsewhere.map(async (other) => [other.directory, await askElsewhere(requests, other)] as const)),
  ]);
  return { ...own, timedOut: requests.timedOut, ...(others.length > 0 && { elsewhere: new Map(others) }) };
}

/**
 * Asks about another directory. By now another process with the same own directory may hold the port, so it must first show a session
 * there.
 */
async function askElsewhere(requests: ProbeRequests, other: OtherDirectory): Promise<DirectoryLook> {
  const { directory, witness, session, known } = other;
  const isThere = other.isListed || (await hasWitness(requests, other));
  if (isThere !== true) return { learnt: {}, missing: PARTS_ELSEWHERE, ...(isThere === false && { isForeign: true }) };
  const listed = Promise.resolve(session && { session });
  const found = await askDirectory(requests, directory, { parts: PARTS_ELSEWHERE, known, listed });
  const isAnswered = Object.keys(found.learnt).length > 0;
  return isAnswered && witness !== undefined ? { ...found, learnt: { ...found.learnt, witness } } : found;
}

/** Whether the server has the witness, a session, in that directory. Undefined if it does not answer. */
async function hasWitness(
  requests: ProbeRequests,
  { directory, witness }: OtherDirectory,
): Promise<boolean | undefined> {
  if (witness === undefined) return false;
  return await requests.attempt(isOfDirectory(requests.work(`/session/${witness}`, MAX_BYTES.session), directory));
}

interface Question {
  readonly parts: readonly OverviewPart[];
  readonly known: OverviewParts | undefined;
  readonly listed: Promise<Pick<OverviewParts, 'session' | 'recent'> | undefined> | undefined;
}

/** `directory` is undefined for the server's own, opencode's default. */
async function askDirectory(
  requests: ProbeRequests,
  directory: string | undefined,
  { parts, known, listed }: Question,
): Promise<DirectoryLook> {
  const [work, sessions] = await Promise.all([askWork(requests, directory, parts), listed]);
  const current = await withoutLeftovers(requests, { ...work, ...sessions });
  const complete = await withFamilies(requests, current, known);
  // Elsewhere only if something was seen running: another process of the same home may run the session, which would look interrupted.
  const isOurs = directory === undefined || known !== undefined;
  const learnt = isOurs ? await withRest(requests, directory, complete, known) : complete;
  return { learnt, missing: parts.filter((part) => learnt[part] === undefined) };
}

async function askWork(
  requests: ProbeRequests,
  directory: string | undefined,
  parts: readonly OverviewPart[],
): Promise<OverviewParts> {
  const askPart = async <T>(
    part: keyof typeof ROUTES,
    read: (answer: unknown) => T | undefined,
  ): Promise<T | undefined> =>
    parts.includes(part)
      ? await requests.attempt(requests.work(pathOf(part, directory), MAX_BYTES[part]).then(read))
      : undefined;
  const status = await askPart('status', serverStatusOf);
  const isIdle = status?.running.length === 0;
  const waits = async (part: 'permissions' | 'questions', read: typeof permissionsOf) =>
    isIdle && parts.includes(part) ? [] : await askPart(part, read);
  const [permissions, questions] = await Promise.all([
    waits('permissions', permissionsOf),
    waits('questions', questionsOf),
  ]);
  return { ...(status && { status }), ...(permissions && { permissions }), ...(questions && { questions }) };
}

function pathOf(part: keyof typeof ROUTES, directory: string | undefined): string {
  return directory === undefined ? ROUTES[part] : `${ROUTES[part]}?directory=${encodeURIComponent(directory)}`;
}

/** Drops requests that an abort left behind: opencode 1.18.33 still lists them, and they would show again whenever their session runs. Their message has ended. */
async function withoutLeftovers(requests: ProbeRequests, learnt: OverviewParts): Promise<OverviewParts> {
  const running = new Set(learnt.status?.running);
  const left = new Set<string>();
  await Promise.all(
    waitingIn(learnt)
      .filter(({ sessionId, messageId }) => messageId !== undefined && running.has(sessionId))
      .slice(0, MAX_CHECKED)
      .map(async ({ id, sessionId, messageId }) => {
        const path = `/session/${sessionId}/message/${messageId}`;
        const message = await requests.work(path, MAX_MESSAGE_BYTES).catch(() => undefined);
        if (hasEnded(message)) left.add(id);
      }),
  );
  return left.size === 0 ? learnt : withWaiting(learnt, (all) => all.filter(({ id }) => !left.has(id)));
}

/** Marks the requests of sub-agents, which carry the sub-agent's session id. Each session is looked up once. */
async function withFamilies(
  requests: ProbeRequests,
  learnt: OverviewParts,
  known: OverviewParts = {},
): Promise<OverviewParts> {
  const running = learnt.status?.running;
  const before = waitingIn(known);
  const waiting = waitingIn(learnt);
  const isChild = new Map<string, boolean>();
  for (const { sessionId } of waiting) {
    const ofSubAgent = before.find((one) => one.sessionId === sessionId)?.ofSubAgent;
    if (ofSubAgent !== undefined) isChild.set(sessionId, ofSubAgent);
  }
  const ids = [...new Set(waiting.map(({ sessionId }) => sessionId))]
    .filter((id) => !isChild.has(id) && (running === undefined || running.includes(id)))
    .slice(0, MAX_FAMILIES);
  await Promise.all(
    ids.map(async (id) => {
      const session = await requests.work(`/session/${id}`, MAX_BYTES.session).catch(() => undefined);
      if (session !== undefined) isChild.set(id, hasParent(session));
    }),
  );
  return withWaiting(learnt, (all) =>
    all.map((one) => {
      const ofSubAgent = isChild.get(one.sessionId);
      return ofSubAgent === undefined ? one : { ...one, ofSubAgent };
    }),
  );
}

function waitingIn({ permissions = [], questions = [] }: OverviewParts): readonly Waiting[] {
  return [...permissions, ...questions];
}

function withWaiting(learnt: OverviewParts, map: (all: readonly Waiting[]) => readonly Waiting[]): OverviewParts {
  const { permissions, questions } = learnt;
  return {
    ...learnt,
    ...(permissions && { permissions: map(permissions) }),
    ...(questions && { questions: map(questions) }),
  };
}

/**
 * Finds out how the last turn of a session that does not run has ended. Asked once per turn, not per survey: the result is valid until
 * the session's update time changes, as it does with each message (opencode 1.18.33).
 */
async function withRest(
  requests: ProbeRequests,
  directory: string | undefined,
  learnt: OverviewParts,
  known: OverviewParts | undefined,
): Promise<OverviewParts> {
  const { status, session } = learnt;
  if (!session || status === undefined || status.running.includes(session.id)) return learnt;
  const resting = (rest: AtRest): OverviewParts => ({ ...learnt, session: { ...session, rest } });
  const before = known?.session;
  if (before?.id === session.id && before.updatedMs === session.updatedMs && before.rest?.state === 'idle')
    return resting(before.rest);
  try {
    const page = await requests.work(`/session/${session.id}/message?limit=1`, MAX_MESSAGE_BYTES);
    const rest = atRest(newestMessageOf(page), requests.now());
    if (rest.state === 'interrupted') {
      // It may have begun after the status was read.
      const now = serverStatusOf(await requests.work(pathOf('status', directory), MAX_BYTES.status));
      if (now?.running.includes(session.id) === true) return { ...learnt, status: now };
    }
    return resting(rest);
  } catch (error) {
    return requests.isTimeout(error) ? learnt : resting({ state: 'idle' });
  }
}
