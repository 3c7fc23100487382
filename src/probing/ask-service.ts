import * as z from 'zod';

import { RequestError } from '../http/request-error.ts';
import type { Dialect, OverviewPart, Waiting } from '../model/instance.ts';
import { permissionOf, questionOf } from '../opencode/dialects/opencode-2/messages.ts';
import {
  dataOf,
  fitting,
  wireActiveSchema,
  wireFormSchema,
  wirePermissionSchema,
  wireQuestionSchema,
  wireSessionSchema,
} from '../opencode/dialects/opencode-2/wire.ts';
import type { WaitingRequest } from '../opencode/waiting.ts';
import { type ListedSession, serviceSessionsOf, waitingOf } from './answers.ts';
import type { OverviewParts } from './overview.ts';
import { LATEST_SERVICE_SESSIONS, LISTED_SESSIONS, olderSessions } from './session-pages.ts';
import {
  ask,
  askDated,
  type DirectoryLook,
  isTimeout,
  type Look,
  type ProbeDeps,
  type ProbeTask,
} from './probe-task.ts';

const MAX_LIST_BYTES = 1024 * 1024;
const MAX_ACTIVE_BYTES = 256 * 1024;
const MAX_REQUESTS_BYTES = 1024 * 1024;
/** More of a title, a command or a diff than an overview shows. */
const MAX_STRING_BYTES = 4096;
/** Sessions that run and are asked what they wait for: two requests each. */
const MAX_ASKED = 32;

/** A directory that was used in this time is listed: who worked there this morning may want to send there tonight. Listing loads nothing. */
export const LATELY_MS = 24 * 3_600_000;
const MAX_LISTED = 16;

/**
 * Asks an OpenCode 2 what it does in each directory of its sessions: one request for the latest sessions, one for what runs, and two
 * for each running session, which may wait. The first probe and a refresh also read older sessions. None of these loads a directory,
 * except the two on the preview, whose directory is loaded because the session runs. Rejects if nothing was answered and its identity
 * was not asked for: it is unreachable.
 */
export async function askService(
  task: ProbeTask,
  deps: ProbeDeps,
  dialect: Dialect,
): Promise<Omit<Look, 'result' | 'latencyMs'>> {
  if (task.parts.length === 0) return { learnt: {}, missing: [], timedOut: false };
  let timedOut = false;
  let answered = 0;
  const failures: unknown[] = [];
  const misfits: string[] = [];
  const attempt: Attempt = async (answer) => {
    try {
      const found = await answer;
      answered += 1;
      return found;
    } catch (error) {
      failures.push(error);
      timedOut ||= isTimeout(error, task);
      if (error instanceof RequestError && error.kind === 'malformed') misfits.push(error.message);
      return undefined;
    }
  };
  const found = await askWork(task, deps, dialect, attempt);
  if (answered === 0 && task.version !== undefined) throw failures[0];
  return { ...found, timedOut, misfits };
}

/** Resolves to undefined if the request fails. */
type Attempt = <T>(answer: Promise<T>) => Promise<T | undefined>;

async function askWork(
  task: ProbeTask,
  deps: ProbeDeps,
  dialect: Dialect,
  attempt: Attempt,
): Promise<Pick<Look, 'learnt' | 'missing' | 'elsewhere' | 'isWhole'>> {
  const [listed, active] = await Promise.all([
    attempt(askDated(task, deps, LATEST_SERVICE_SESSIONS, MAX_LIST_BYTES, MAX_STRING_BYTES)),
    attempt(ask(task, deps, '/api/session/active', MAX_ACTIVE_BYTES)),
  ]);
  const latest = listed && (await latestIn(listed.body, attempt));
  let isWhole = entriesOf(listed?.body).length < LISTED_SESSIONS;
  const older: ListedSession[] = [];
  if (task.version === undefined && !isWhole) isWhole = await askOlder(task, deps, listed?.body, older);
  const sessions = latest && [...latest, ...older];
  const running = active === undefined ? undefined : await attempt(activeIn(active));
  const missing: OverviewPart[] = [
    ...(sessions ? [] : ['session' as const]),
    ...(running ? [] : ['status' as const, 'permissions' as const, 'questions' as const]),
  ];
  if (sessions === undefined) return { learnt: {}, missing };
  const nowMs = listed?.dateMs ?? deps.clock.now();
  if (running === undefined) return { missing, isWhole, ...directoriesOf(sessions, { missing }, nowMs) };
  const unlisted = running.filter((one) => !sessions.some((session) => session.id === one)).slice(0, MAX_ASKED);
  const [found, requests] = await Promise.all([
    Promise.all(unlisted.map((id) => attempt(ask(task, deps, `/api/session/${id}`, MAX_LIST_BYTES, MAX_STRING_BYTES)))),
    Promise.all(running.slice(0, MAX_ASKED).map((id) => attempt(requestsOf(task, deps, id, dialect)))),
  ]);
  const looked = found.map((answer) => (answer as { readonly data?: unknown } | undefined)?.data);
  const known = [...sessions, ...(serviceSessionsOf({ data: looked }) ?? [])];
  const waiting = requests.flatMap((asked) => asked ?? []);
  const unanswered = running.filter((_, index) => index < MAX_ASKED && requests[index] === undefined);
  return {
    isWhole,
    missing: unanswered.length > 0 ? REQUESTS : [],
    ...directoriesOf(known, { running, waiting, unanswered, missing: [] }, nowMs),
  };
}

/** Adds them to `found`. False if there may be more: the directories of those stay as an earlier probe found them. */
async function askOlder(task: ProbeTask, deps: ProbeDeps, latest: unknown, found: ListedSession[]): Promise<boolean> {
  let isAll = false;
  try {
    const pages = olderSessions(latest, (path) => ask(task, deps, path, MAX_LIST_BYTES, MAX_STRING_BYTES));
    for await (const { sessions, isLast } of pages) {
      found.push(...sessions);
      isAll = isLast;
    }
  } catch {
    return false;
  }
  return isAll;
}

const REQUESTS: readonly OverviewPart[] = ['permissions', 'questions'];

/** What all sessions do. */
interface Work {
  /** Undefined where it was not learnt. */
  readonly running?: readonly string[];
  readonly waiting?: readonly Waiting[];
  /** Sessions that run, and of which it was not learnt what they wait for. */
  readonly unanswered?: readonly string[];
  readonly missing: readonly OverviewPart[];
}

/** Leaves out and reports entries that do not fit the contract. */
async function latestIn(answer: unknown, attempt: Attempt): Promise<readonly ListedSession[] | undefined> {
  const found = serviceSessionsOf(answer);
  if (found === undefined || found.length < entriesOf(answer).length) await attempt(sessionsIn(answer));
  return found;
}

function entriesOf(page: unknown): readonly unknown[] {
  const { data } = (page ?? {}) as { readonly data?: unknown };
  return Array.isArray(data) ? data : [];
}

const sessionsIn = async (answer: unknown): Promise<unknown> =>
  fitting(dataOf(z.array(wireSessionSchema)), answer, 'GET /api/session');

const activeIn = async (answer: unknown): Promise<readonly string[]> =>
  Object.keys(fitting(dataOf(wireActiveSchema), answer, 'GET /api/session/active').data);

/** What a session that runs waits for. */
async function requestsOf(task: ProbeTask, deps: ProbeDeps, id: string, dialect: Dialect): Promise<readonly Waiting[]> {
  const list = async <T>(kind: string, schema: z.ZodType<T>): Promise<readonly T[]> => {
    const path = `/api/session/${id}/${kind}`;
    const answer = await ask(task, deps, path, MAX_REQUESTS_BYTES, MAX_STRING_BYTES);
    return fitting(dataOf(z.array(schema)), answer, `GET ${path}`).data;
  };
  const [permissions, questions] = await Promise.all([
    list('permission', wirePermissionSchema),
    dialect === 'opencode-2-preview'
      ? list('question', wireQuestionSchema)
      : list('form', wireFormSchema).then((forms) => forms.map(questionOf)),
  ]);
  return [
    ...permissions.map((one): WaitingRequest => ({ kind: 'permission', request: permissionOf(one) })),
    ...questions.map((request): WaitingRequest => ({ kind: 'question', request })),
  ].map(waitingOf);
}

/** The work in each directory, what runs first and then the most recently used. */
function directoriesOf(
  sessions: readonly ListedSession[],
  work: Work,
  nowMs: number,
): Pick<Look, 'learnt' | 'elsewhere'> {
  const byDirectory = new Map<string, ListedSession[]>();
  for (const session of sessions) {
    const group = byDirectory.get(session.directory);
    if (group === undefined) byDirectory.set(session.directory, [session]);
    else group.push(session);
  }
  const elsewhere = new Map<string, DirectoryLook>();
  let listed = 0;
  for (const [directory, own] of byDirectory) {
    const runs = own.some(({ id }) => work.running?.includes(id));
    const isRecent = own.some(({ updatedMs }) => nowMs - updatedMs <= LATELY_MS);
    const isListed = runs || (isRecent && listed < MAX_LISTED);
    listed += isListed ? 1 : 0;
    const isUnanswered = own.some(({ id }) => work.unanswered?.includes(id));
    elsewhere.set(directory, {
      learnt: { ...workIn(own, work), isOld: !isListed },
      missing: isUnanswered ? REQUESTS : work.missing,
    });
  }
  const { running, missing } = work;
  return { learnt: workIn(sessions, { ...(running && { running }), missing }), elsewhere };
}

function workIn(sessions: readonly ListedSession[], { running, waiting = [] }: Work): OverviewParts {
  const latest = sessions.find(({ isChild, isArchived }) => !isChild && !isArchived);
  const session =
    latest === undefined
      ? null
      : { id: latest.id, title: latest.title, directory: latest.directory, updatedMs: latest.updatedMs };
  if (running === undefined) return { session };
  const runs = running.filter((running) => sessions.some(({ id }) => id === running));
  const isSubAgents = (sessionId: string): boolean => sessions.some(({ id, isChild }) => id === sessionId && isChild);
  const own = waiting
    .filter(({ sessionId }) => runs.includes(sessionId))
    .map((one) => ({ ...one, ofSubAgent: isSubAgents(one.sessionId) }));
  return {
    status: { activity: { kind: runs.length > 0 ? 'busy' : 'idle' }, running: runs },
    permissions: own.filter(({ kind }) => kind === 'permission'),
    questions: own.filter(({ kind }) => kind === 'question'),
    session,
  };
}
