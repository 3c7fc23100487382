import { type AtRest, atRest } from '../model/at-rest.ts';
import {
  doingOf,
  firstSessionOf,
  hasParent,
  isSessionId,
  newestMessageOf,
  permissionsOf,
  questionsOf,
  together,
} from './answers.ts';
import type { OverviewPart, SessionSummary, Waiting } from '../model/instance.ts';
import type { OverviewParts } from './overview.ts';
import { ask, isTimeout, type Look, type ProbeDeps, type ProbeTask } from './probe-task.ts';

/** A permission request carries the whole diff it asks about, and a session its summary. */
const MAX_BYTES: Record<OverviewPart, number> = {
  status: 256 * 1024,
  permissions: 1024 * 1024,
  questions: 256 * 1024,
  session: 1024 * 1024,
};

/** One message with its parts; of a longer one nothing is told. */
const MAX_MESSAGE_BYTES = 2 * 1024 * 1024;

/** Sessions of requests that wait; more are told without saying whose they are. */
const MAX_FAMILIES = 3;

/**
 * What an instance is doing. What waits is busy, so permissions and questions are asked only in directories where something runs, or
 * whose status is not known: an idle instance costs two requests. Rejects for nothing but a bug: a part without an answer is `missing`.
 */
export async function askOverview(
  task: ProbeTask,
  deps: ProbeDeps,
  directory: string,
): Promise<Pick<Look, 'learnt' | 'missing' | 'timedOut'>> {
  const directories = [directory, ...(task.alsoIn ?? [])];
  const wants = (part: OverviewPart): boolean => task.parts.includes(part);
  let timedOut = false;
  /** One answer for each of `where`, or undefined where one of them is missing or not of opencode's form. */
  const askIn = async <T>(
    part: OverviewPart,
    where: readonly string[],
    read: (answer: unknown) => T | undefined,
  ): Promise<readonly T[] | undefined> => {
    try {
      const answers = await Promise.all(
        where.map(async (one) => read(await ask(task, deps, pathOf(part, one, one === directory), MAX_BYTES[part]))),
      );
      const usable = answers.filter((answer) => answer !== undefined);
      return usable.length === answers.length ? usable : undefined;
    } catch (error) {
      timedOut ||= isTimeout(error, task);
      return undefined;
    }
  };
  const askWork = async (): Promise<OverviewParts> => {
    const doings = wants('status') ? await askIn('status', directories, doingOf) : undefined;
    const active = directories.filter((_, index) => doings?.[index]?.running.length !== 0);
    const [permissions, questions] = await Promise.all([
      wants('permissions') ? askIn('permissions', active, permissionsOf) : undefined,
      wants('questions') ? askIn('questions', active, questionsOf) : undefined,
    ]);
    return {
      ...(doings && { status: together(doings) }),
      ...(permissions && { permissions: permissions.flat() }),
      ...(questions && { questions: questions.flat() }),
    };
  };
  const [work, sessions] = await Promise.all([
    askWork(),
    wants('session') ? askIn('session', directories, firstSessionOf) : undefined,
  ]);
  let learnt: OverviewParts = {
    ...work,
    ...(sessions && { session: sessions[0] ?? null, latest: newestOf(sessions) }),
  };
  learnt = await withFamilies(task, deps, learnt);
  learnt = await withRest(task, deps, learnt);
  return { learnt, missing: task.parts.filter((part) => learnt[part] === undefined), timedOut };
}

/** The latest session of the directories beside the instance's own, where it is newer than the one there; null where none is. */
function newestOf([own, ...others]: readonly (SessionSummary | null)[]): SessionSummary | null {
  let newest: SessionSummary | null = null;
  let newestMs = own?.updatedMs ?? 0;
  for (const session of others) {
    if (session === null || session.updatedMs <= newestMs) continue;
    newest = session;
    newestMs = session.updatedMs;
  }
  return newest;
}

const ROUTES = { status: '/session/status', permissions: '/permission', questions: '/question' } as const;

/** Without a directory the server takes its own, as it does for its `/path`; only the session list would be the whole project's. */
function pathOf(part: OverviewPart, directory: string, isOwn: boolean): string {
  if (part === 'session') return `${inDirectory('/session', directory)}&roots=true&limit=1`;
  return isOwn ? ROUTES[part] : inDirectory(ROUTES[part], directory);
}

/** Finds out which of the requests that wait are a sub-agent's, which carry its own session's id. Asked once for each request. */
async function withFamilies(task: ProbeTask, deps: ProbeDeps, learnt: OverviewParts): Promise<OverviewParts> {
  const running = learnt.status?.running;
  const before = [...(task.known?.permissions ?? []), ...(task.known?.questions ?? [])];
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
async function withRest(task: ProbeTask, deps: ProbeDeps, learnt: OverviewParts): Promise<OverviewParts> {
  const { status } = learnt;
  const isElsewhere = learnt.latest != null;
  const session = learnt.latest ?? learnt.session;
  if (!session || status === undefined || status.running.includes(session.id)) return learnt;
  const standing = (rest: AtRest): OverviewParts => ({
    ...learnt,
    [isElsewhere ? 'latest' : 'session']: { ...session, rest },
  });
  const known = task.known?.latest ?? task.known?.session;
  if (known?.id === session.id && known.updatedMs === session.updatedMs && known.rest?.state === 'idle')
    return standing(known.rest);
  try {
    const page = await ask(task, deps, `/session/${session.id}/message?limit=1`, MAX_MESSAGE_BYTES);
    const rest = atRest(newestMessageOf(page), deps.clock.now());
    if (rest.state === 'interrupted') {
      // It may have begun after the status was told.
      const path = isElsewhere ? inDirectory(ROUTES.status, session.directory) : ROUTES.status;
      const now = doingOf(await ask(task, deps, path, MAX_BYTES.status));
      if (now?.running.includes(session.id) === true) return { ...learnt, status: together([status, now]) };
    }
    return standing(rest);
  } catch (error) {
    return isTimeout(error, task) ? learnt : standing({ state: 'idle' });
  }
}

function inDirectory(route: string, directory: string): string {
  return `${route}?directory=${encodeURIComponent(directory)}`;
}
