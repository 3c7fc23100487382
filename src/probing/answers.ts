import type { NewestMessage } from '../model/at-rest.ts';
import { permissionSchema, questionSchema } from '../opencode/schema.ts';
import { describeWaiting, type WaitingRequest } from '../opencode/waiting.ts';
import { singleLine } from '../base/plain-text.ts';
import type { Activity, SessionSummary, Waiting } from '../model/instance.ts';

/**
 * What of a probe's answers is used, checked by hand: the other end may be anything, and zod takes eight times as long: 1.2 ms
 * more in a survey of 200 instances, 4 ms in the first (zod 4.6, Node 20.20). Each function gives undefined where the answer is not of opencode's form.
 */

/** Linux' PATH_MAX; a longer one is a lie. */
const MAX_PATH_CHARS = 4096;
const MAX_VERSION_CHARS = 64;
const MAX_TITLE_CHARS = 200;
const MAX_MESSAGE_CHARS = 300;

/** Requests that wait at one instance; those left by aborts stay listed for ever. */
const MAX_WAITING = 100;

const ABSOLUTE = /^(?:\/|[A-Za-z]:[\\/]|\\\\)/;

/** No directory has these in its name. Any other character one may have; what shows it takes care of that. */
const NEVER_IN_A_PATH = /[\0\p{Surrogate}]/u;

const SESSION_ID = /^ses[A-Za-z0-9_-]{1,125}$/;

export function healthOf(value: unknown): { readonly healthy: boolean; readonly version: string } | undefined {
  const { healthy, version } = fields(value);
  if (typeof healthy !== 'boolean' || typeof version !== 'string') return undefined;
  if (version === '' || version.length > MAX_VERSION_CHARS || singleLine(version, MAX_VERSION_CHARS) !== version)
    return undefined;
  return { healthy, version };
}

export function pathOf(value: unknown): { readonly directory: string; readonly worktree: string } | undefined {
  const { directory, worktree } = fields(value);
  return isPath(directory) && isPath(worktree) ? { directory, worktree } : undefined;
}

/** What an instance does, and which sessions do it. */
export interface Doing {
  readonly activity: Activity;
  readonly running: readonly string[];
}

/** `/session/status` lists only what is not idle. A retry comes before plain work: a person should look at it. */
export function doingOf(value: unknown): Doing | undefined {
  if (!isRecord(value)) return undefined;
  const running: string[] = [];
  let retrying: Activity | undefined;
  for (const [id, status] of Object.entries(value)) {
    const { type, attempt, message } = fields(status);
    if (type === 'retry') {
      retrying ??= {
        kind: 'retrying',
        attempt: typeof attempt === 'number' && Number.isFinite(attempt) ? attempt : 0,
        message: typeof message === 'string' ? singleLine(message, MAX_MESSAGE_CHARS) : '',
      };
    } else if (typeof type !== 'string') return undefined;
    // Left out, what runs would look idle.
    if (!isSessionId(id)) return undefined;
    if (type !== 'idle') running.push(id);
  }
  const busy: Activity = running.length > 0 ? { kind: 'busy' } : { kind: 'idle' };
  return { activity: retrying ?? busy, running };
}

/** They are few, so that checking them whole costs nothing. What they hold beside is not kept: a diff may be of a megabyte. */
export function permissionsOf(value: unknown): readonly Waiting[] | undefined {
  return listOf(value, (one) => {
    const { data } = permissionSchema.safeParse(one);
    return data && shortly({ kind: 'permission', request: data });
  });
}

export function questionsOf(value: unknown): readonly Waiting[] | undefined {
  return listOf(value, (one) => {
    const { data } = questionSchema.safeParse(one);
    return data && shortly({ kind: 'question', request: data });
  });
}

export function shortly(waiting: WaitingRequest): Waiting {
  const { kind, request } = waiting;
  return {
    kind,
    id: request.id,
    sessionId: request.sessionID,
    text: describeWaiting(waiting, MAX_MESSAGE_CHARS),
    ...(request.tool !== undefined && { messageId: request.tool.messageID }),
  };
}

function listOf<T>(value: unknown, read: (one: unknown) => T | undefined): readonly T[] | undefined {
  return Array.isArray(value) ? every(value.slice(0, MAX_WAITING), read) : undefined;
}

/** Undefined where one of them is not of opencode's form. */
function every<T>(values: readonly unknown[], read: (one: unknown) => T | undefined): readonly T[] | undefined {
  const known = values.map(read).filter((one) => one !== undefined);
  return known.length === values.length ? known : undefined;
}

/** A session as a listing has it; `isChild`: a sub-agent's. */
export interface ListedSession extends SessionSummary {
  readonly isChild: boolean;
  readonly isArchived: boolean;
  /** Of the repository: the same for all its worktrees; absent where there is none. */
  readonly projectId?: string;
}

/** What opencode calls the project of all directories that are in no repository. */
const NO_PROJECT = 'global';

export function sessionsOf(value: unknown): readonly ListedSession[] | undefined {
  return Array.isArray(value) ? every(value, sessionOf) : undefined;
}

/** Of OpenCode 2's page, the latest first. One that makes no sense is left out: it must not hide those of all other directories. */
export function serviceSessionsOf(page: unknown): readonly ListedSession[] | undefined {
  const { data } = fields(page);
  if (!Array.isArray(data)) return undefined;
  const found = data
    .map((one) => sessionOf({ ...fields(one), directory: fields(fields(one)['location'])['directory'] }))
    .filter((one) => one !== undefined);
  return found.length > 0 || data.length === 0 ? found : undefined;
}

function sessionOf(value: unknown): ListedSession | undefined {
  const { id, title, directory, time, parentID, projectID } = fields(value);
  const { updated, archived } = fields(time);
  if (typeof id !== 'string' || !SESSION_ID.test(id) || !isPath(directory)) return undefined;
  if (!isTime(updated)) return undefined;
  return {
    id,
    title: typeof title === 'string' ? singleLine(title, MAX_TITLE_CHARS) : '',
    directory,
    updatedMs: updated,
    isChild: typeof parentID === 'string',
    isArchived: typeof archived === 'number',
    ...(typeof projectID === 'string' && projectID !== NO_PROJECT && { projectId: projectID }),
  };
}

/** The last message of a page; undefined where there is none. */
export function newestMessageOf(page: unknown): NewestMessage | undefined {
  if (!Array.isArray(page)) return undefined;
  const { role, time, error } = fields(fields(page.at(-1))['info']);
  const { created, completed } = fields(time);
  if ((role !== 'user' && role !== 'assistant') || !isTime(created)) return undefined;
  return { role, time: { created, completed: isTime(completed) ? completed : undefined }, error };
}

/** Whether an assistant's message has ended, completed or not. */
export function hasEnded(message: unknown): boolean {
  const found = newestMessageOf([message]);
  return (
    found?.role === 'assistant' && (found.time.completed !== undefined || (found.error ?? undefined) !== undefined)
  );
}

/** Whether a session works for another one. */
export function hasParent(session: unknown): boolean {
  return typeof fields(session)['parentID'] === 'string';
}

export function directoryOf(session: unknown): unknown {
  return fields(session)['directory'];
}

/** What goes into a path must be one. */
export function isSessionId(id: string): boolean {
  return SESSION_ID.test(id);
}

function isPath(value: unknown): value is string {
  return (
    typeof value === 'string' && value.length <= MAX_PATH_CHARS && ABSOLUTE.test(value) && !NEVER_IN_A_PATH.test(value)
  );
}

/** What a Date can hold. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= 8.64e15;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}
