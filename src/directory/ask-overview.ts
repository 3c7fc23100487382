import { type AtRest, atRest } from '../opencode/at-rest.ts';
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
import type { OverviewPart, SessionSummary, Waiting } from './instance.ts';
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

/** What an instance is doing. Rejects for nothing but a bug: a part without an answer is `missing`. */
export async function askOverview(
  task: ProbeTask,
  deps: ProbeDeps,
  directory: string,
): Promise<Pick<Look, 'learnt' | 'missing' | 'timedOut'>> {
  let learnt: OverviewParts = {};
  let timedOut = false;
  await Promise.all(
    task.parts.map(async (part) => {
      try {
        const paths = pathsFor(part, directory, task.alsoIn ?? []);
        const answers = await Promise.all(paths.map((path) => ask(task, deps, path, MAX_BYTES[part])));
        const value = READ[part](answers);
        if (value === undefined) return;
        learnt = { ...learnt, [part]: value };
        if (part === 'session') learnt = { ...learnt, latest: newestOf(answers) };
      } catch (error) {
        timedOut ||= isTimeout(error, task);
      }
    }),
  );
  learnt = await withFamilies(task, deps, learnt);
  learnt = await withRest(task, deps, learnt);
  return { learnt, missing: task.parts.filter((part) => learnt[part] === undefined), timedOut };
}

/** Of one answer for each directory; undefined where one of them is not of opencode's form. */
const READ: { readonly [Part in OverviewPart]: (answers: readonly unknown[]) => OverviewParts[Part] | undefined } = {
  status: (answers) => {
    const all = allOf(answers, doingOf);
    return all && together(all);
  },
  permissions: (answers) => allOf(answers, permissionsOf)?.flat(),
  questions: (answers) => allOf(answers, questionsOf)?.flat(),
  session: ([answer]) => firstSessionOf(answer),
};

/** Of the directories beside the instance's own, where it is newer than what stands there; null where none is. */
function newestOf([own, ...others]: readonly unknown[]): SessionSummary | null {
  let newest: SessionSummary | null = null;
  let newestMs = firstSessionOf(own)?.updatedMs ?? 0;
  for (const answer of others) {
    const session = firstSessionOf(answer);
    if (!session || session.updatedMs <= newestMs) continue;
    newest = session;
    newestMs = session.updatedMs;
  }
  return newest;
}

function allOf<T>(answers: readonly unknown[], read: (answer: unknown) => T | undefined): readonly T[] | undefined {
  const all = answers.map(read).filter((one) => one !== undefined);
  return all.length === answers.length ? all : undefined;
}

const ROUTES = { status: '/session/status', permissions: '/permission', questions: '/question' } as const;

/** Without a directory the server takes its own, as it does for its `/path`; only the session list would be the whole project's. */
function pathsFor(part: OverviewPart, directory: string, alsoIn: readonly string[]): readonly string[] {
  if (part === 'session')
    return [directory, ...alsoIn].map((one) => `${inDirectory('/session', one)}&roots=true&limit=1`);
  const route = ROUTES[part];
  return [route, ...alsoIn.map((other) => inDirectory(route, other))];
}

/** Finds out which of the requests that wait are a sub-agent's: they carry its own session's id. Few wait, and mostly none. */
async function withFamilies(task: ProbeTask, deps: ProbeDeps, learnt: OverviewParts): Promise<OverviewParts> {
  const running = learnt.status?.running;
  const waiting = [...(learnt.permissions ?? []), ...(learnt.questions ?? [])];
  const ids = [...new Set(waiting.map(({ sessionId }) => sessionId))]
    .filter((id) => isSessionId(id) && (running === undefined || running.includes(id)))
    .slice(0, MAX_FAMILIES);
  const children = new Set<string>();
  await Promise.all(
    ids.map(async (id) => {
      const session = await ask(task, deps, `/session/${id}`, MAX_BYTES.session).catch(() => undefined);
      if (hasParent(session)) children.add(id);
    }),
  );
  if (children.size === 0) return learnt;
  const named = (all: readonly Waiting[]): readonly Waiting[] =>
    all.map((one) => (children.has(one.sessionId) ? { ...one, ofSubAgent: true } : one));
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
  const known = task.lastSession;
  if (known?.id === session.id && known.updatedMs === session.updatedMs && known.rest?.state === 'idle')
    return standing(known.rest);
  try {
    const page = await ask(task, deps, `/session/${session.id}/message?limit=1`, MAX_MESSAGE_BYTES);
    const rest = atRest(newestMessageOf(page), deps.clock.now());
    if (rest.state === 'interrupted') {
      // It may have begun after the status was told.
      const path = isElsewhere ? inDirectory(ROUTES.status, session.directory) : ROUTES.status;
      const now = doingOf(await ask(task, deps, path, MAX_BYTES.status));
      const later = now?.running.includes(session.id) === true ? together([status, now]) : undefined;
      if (later !== undefined) return { ...learnt, status: later };
    }
    return standing(rest);
  } catch (error) {
    return isTimeout(error, task) ? learnt : standing({ state: 'idle' });
  }
}

function inDirectory(route: string, directory: string): string {
  return `${route}?directory=${encodeURIComponent(directory)}`;
}
