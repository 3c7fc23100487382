import * as z from 'zod';

import { fieldsOf, messageOf } from '../base/errors.ts';
import { RequestError } from '../http/request-error.ts';
import { type Dialect, OVERVIEW_PARTS, type OverviewPart, type Waiting } from '../model/instance.ts';
import { permissionOf, questionOf } from '../opencode/dialects/opencode-2/messages.ts';
import {
  dataOf,
  wireActiveSchema,
  wireFormSchema,
  wirePermissionSchema,
  wireQuestionSchema,
  wireSessionSchema,
} from '../opencode/dialects/opencode-2/wire.ts';
import { fitting } from '../opencode/fitting.ts';
import type { WaitingRequest } from '../opencode/waiting.ts';
import { type ListedSession, serviceSessionsOf, waitingOf } from './answers.ts';
import type { OverviewParts } from './overview.ts';
import {
  isPersons,
  LATEST_SERVICE_SESSIONS,
  LISTED_SERVICE_SESSIONS,
  olderSessions,
  summaryOf,
} from './list-sessions.ts';
import type { ProbeRequests } from './probe-requests.ts';
import type { DirectoryLook, Look, ProbeTask } from './probe-task.ts';

const MAX_LIST_BYTES = 1024 * 1024;
const MAX_ACTIVE_BYTES = 256 * 1024;
const MAX_REQUESTS_BYTES = 1024 * 1024;
/** Running sessions that are asked for waiting requests: two requests each. */
const MAX_ASKED = 32;

/** A directory used within a day is listed: a person may continue in the evening what the morning began. Listing loads nothing. */
export const LATELY_MS = 24 * 3_600_000;
const MAX_LISTED = 16;

/**
 * Asks an OpenCode 2 what it does in each directory of its sessions: one request for the latest sessions, one for what runs, and two
 * for each running session, which may wait. The first probe and a refresh also read older sessions. None of these loads a directory;
 * on the preview the last two would, but the session runs, so its directory is already loaded. Rejects if no request was answered, unless
 * this probe has already identified the server.
 */
export async function askService(
  requests: ProbeRequests,
  { parts, version }: ProbeTask,
  dialect: Dialect,
): Promise<Omit<Look, 'result' | 'latencyMs'>> {
  if (parts.length === 0) return { learnt: {}, missing: [], timedOut: false };
  const found = await askWork(requests, dialect, version === undefined);
  const { answered, failures, timedOut } = requests;
  if (answered === 0 && version !== undefined) throw failures[0];
  const misfits = failures
    .filter((error) => error instanceof RequestError && error.kind === 'malformed')
    .map(messageOf);
  return { ...found, timedOut, misfits };
}

async function askWork(
  requests: ProbeRequests,
  dialect: Dialect,
  wantsOlder: boolean,
): Promise<Pick<Look, 'learnt' | 'missing' | 'elsewhere' | 'isWhole'>> {
  const [listed, active] = await Promise.all([
    requests.attempt(requests.datedWork(LATEST_SERVICE_SESSIONS, MAX_LIST_BYTES)),
    requests.attempt(requests.work('/api/session/active', MAX_ACTIVE_BYTES)),
  ]);
  const latest = listed && (await latestIn(requests, listed.body));
  const running = active === undefined ? undefined : await requests.attempt(activeIn(active));
  if (listed === undefined || latest === undefined)
    return { learnt: {}, missing: running ? ['session'] : OVERVIEW_PARTS };
  const { body, nowMs } = listed;
  const isFull = entriesOf(body).length >= LISTED_SERVICE_SESSIONS;
  const unlisted = (running ?? []).filter((one) => !latest.some((session) => session.id === one)).slice(0, MAX_ASKED);
  const [older, found, asked] = await Promise.all([
    isFull && wantsOlder ? askOlder(requests, body) : { sessions: [], isAll: !isFull, isLate: false },
    Promise.all(unlisted.map((id) => requests.attempt(requests.work(`/api/session/${id}`, MAX_LIST_BYTES)))),
    Promise.all((running ?? []).slice(0, MAX_ASKED).map((id) => requests.attempt(waitingIn(requests, id, dialect)))),
  ]);
  const foundData = found.map((answer) => fieldsOf(answer)['data']);
  const known = [...latest, ...older.sessions, ...(serviceSessionsOf({ data: foundData }) ?? [])];
  const isWhole = older.isAll;
  const late: readonly OverviewPart[] = older.isLate ? ['session'] : [];
  if (running === undefined)
    return { missing: [...late, ...WORK], isWhole, ...directoriesOf(known, { missing: WORK }, nowMs) };
  const unanswered = running.filter((_, index) => index < MAX_ASKED && asked[index] === undefined);
  const waiting = asked.flatMap((one) => one ?? []);
  return {
    isWhole,
    missing: [...late, ...(unanswered.length > 0 ? REQUESTS : [])],
    ...directoriesOf(known, { running, waiting, unanswered, missing: [] }, nowMs),
  };
}

interface OlderSessions {
  readonly sessions: readonly ListedSession[];
  /** All sessions were read. If not, the directories of the rest stay as an earlier probe found them. */
  readonly isAll: boolean;
  /** The time ran out before all were read. */
  readonly isLate: boolean;
}

async function askOlder(requests: ProbeRequests, latest: unknown): Promise<OlderSessions> {
  const found: ListedSession[] = [];
  let isAll = false;
  try {
    const pages = olderSessions(latest, (path) => requests.work(path, MAX_LIST_BYTES));
    for await (const { sessions, isLast } of pages) {
      found.push(...sessions);
      isAll = isLast;
    }
    return { sessions: found, isAll, isLate: false };
  } catch (error) {
    const isLate = requests.isTimeout(error);
    requests.timedOut ||= isLate;
    return { sessions: found, isAll: false, isLate };
  }
}

const WORK: readonly OverviewPart[] = OVERVIEW_PARTS.filter((part) => part !== 'session');
const REQUESTS: readonly OverviewPart[] = ['permissions', 'questions'];

/** What all sessions of the service do. */
interface Work {
  /** Undefined if unknown. */
  readonly running?: readonly string[];
  readonly waiting?: readonly Waiting[];
  /** Running sessions whose waiting requests are unknown. */
  readonly unanswered?: readonly string[];
  readonly missing: readonly OverviewPart[];
}

/** Leaves out and reports entries that do not fit the contract. */
async function latestIn(requests: ProbeRequests, answer: unknown): Promise<readonly ListedSession[] | undefined> {
  const found = serviceSessionsOf(answer);
  if (found === undefined || found.length < entriesOf(answer).length) await requests.attempt(sessionsIn(answer));
  return found;
}

function entriesOf(page: unknown): readonly unknown[] {
  const { data } = fieldsOf(page);
  return Array.isArray(data) ? data : [];
}

const sessionsIn = async (answer: unknown): Promise<unknown> =>
  fitting(dataOf(z.array(wireSessionSchema)), answer, 'GET /api/session');

const activeIn = async (answer: unknown): Promise<readonly string[]> =>
  Object.keys(fitting(dataOf(wireActiveSchema), answer, 'GET /api/session/active').data);

async function waitingIn(requests: ProbeRequests, id: string, dialect: Dialect): Promise<readonly Waiting[]> {
  const list = async <T>(kind: string, schema: z.ZodType<T>): Promise<readonly T[]> => {
    const path = `/api/session/${id}/${kind}`;
    return fitting(dataOf(z.array(schema)), await requests.work(path, MAX_REQUESTS_BYTES), `GET ${path}`).data;
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

/** The work in each directory. Marks those that are not listed as old. */
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
  const session = summaryOf(sessions.find(isPersons));
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
