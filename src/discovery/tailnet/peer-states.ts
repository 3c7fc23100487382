import { win32 } from 'node:path';
import * as z from 'zod';
import { singleLine } from '../../base/plain-text.ts';
import type { ReportedServer } from '../../model/report.ts';

/** Limits on the directories of one server and the sessions of each. */
export const MAX_STATED_DIRECTORIES = 64;
export const MAX_STATED_SESSIONS = 50;
const MAX_RUNNING = 500;
const MAX_WAITING = 100;

const MAX_VERSION_CHARS = 64;
const MAX_TITLE_CHARS = 200;
const MAX_REASON_CHARS = 300;
/** PATH_MAX on Linux. */
const MAX_DIRECTORY_CHARS = 4096;
/** The limit of Date. */
const MAX_TIME_MS = 8.64e15;

/** Ids are used in request paths. */
const sessionId = z.string().regex(/^ses[A-Za-z0-9_-]{1,125}$/);
const plainId = z.string().regex(/^[A-Za-z0-9_-]{1,128}$/);

const time = z.number().min(0).max(MAX_TIME_MS);
const line = (maxChars: number) => z.string().transform((text) => singleLine(text, maxChars));
/** Refused if it had to be cleaned, since that would name another directory. */
const directory = z
  .string()
  .max(MAX_DIRECTORY_CHARS)
  .refine((path) => win32.isAbsolute(path) && singleLine(path, MAX_DIRECTORY_CHARS) === path);
const version = z
  .string()
  .min(1)
  .refine((text) => singleLine(text, MAX_VERSION_CHARS) === text);

const waitingSchema = z.object({
  kind: z.enum(['permission', 'question']),
  id: plainId,
  sessionId,
  messageId: plainId.exactOptional(),
  text: line(MAX_REASON_CHARS),
  ofSubAgent: z.boolean().exactOptional(),
});

const activitySchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.enum(['idle', 'busy', 'unknown']) }),
  z.object({ kind: z.literal('retrying'), attempt: z.number(), message: line(MAX_REASON_CHARS) }),
]);

const summarySchema = z.object({
  id: sessionId,
  title: line(MAX_TITLE_CHARS),
  directory,
  updatedMs: time,
  rest: z
    .object({ state: z.enum(['idle', 'starting', 'interrupted']), reason: line(MAX_REASON_CHARS).exactOptional() })
    .exactOptional(),
});

const watchedSchema = z.object({
  id: sessionId,
  title: line(MAX_TITLE_CHARS),
  directory,
  parentId: sessionId.exactOptional(),
  state: z.enum(['waiting', 'busy', 'retrying', 'idle', 'failed', 'interrupted']),
  sinceMs: time,
  turnBeganMs: time.exactOptional(),
  reason: line(MAX_REASON_CHARS).exactOptional(),
  waiting: z.array(waitingSchema).max(MAX_WAITING),
});

const overviewSchema = z.object({
  directory: z.union([z.literal(''), directory]),
  witness: sessionId.exactOptional(),
  activity: activitySchema,
  running: z.array(sessionId).max(MAX_RUNNING),
  session: summarySchema.exactOptional(),
  waiting: z.array(waitingSchema).max(MAX_WAITING),
  isOld: z.literal(true).exactOptional(),
  sessions: z.array(watchedSchema).max(MAX_STATED_SESSIONS).exactOptional(),
});

const facts = { id: z.string(), version, overviews: z.array(overviewSchema).max(MAX_STATED_DIRECTORIES) };

const stateSchema = z.discriminatedUnion('dialect', [
  z.object({ ...facts, dialect: z.literal('opencode-1'), directory, worktree: directory }),
  // OpenCode 2 has no directory of its own.
  z.object({
    ...facts,
    dialect: z.enum(['opencode-2', 'opencode-2-preview']),
    directory: z.unknown().transform(() => ''),
    worktree: z.unknown().transform(() => ''),
    pid: z.int().positive().exactOptional(),
  }),
]);

export interface PeerStates {
  /** By the id in the list. */
  readonly states: ReadonlyMap<string, ReportedServer>;
  readonly leftOut: number;
}

/**
 * Reads the states in a node service's list; `ids` are the servers listed. The machine that sent them may be hostile: text is
 * bounded and cleaned. A server with any invalid part is left out as a whole and counted, because without that part a waiting
 * server could look idle. Servers left out are probed instead.
 */
export function readPeerStates(raw: readonly unknown[], ids: ReadonlySet<string>): PeerStates {
  const states = new Map<string, ReportedServer>();
  // Parses no more entries than there are servers, whatever is sent.
  for (const one of raw.slice(0, ids.size)) {
    const { data } = stateSchema.safeParse(one);
    if (data === undefined || !ids.has(data.id) || states.has(data.id)) continue;
    const { id, overviews, ...server } = data;
    states.set(id, { result: { status: 'healthy', ...server }, overviews });
  }
  return { states, leftOut: raw.length - states.size };
}
