import type { Clock } from '../clock.ts';
import type { Candidate } from '../discovery/source.ts';
import { type Connection, RequestError, requestJson } from '../opencode/transport.ts';
import { singleLine } from '../plain-text.ts';
import {
  doingOf,
  firstSessionOf,
  hasParent,
  healthOf,
  isSessionId,
  pathOf,
  permissionsOf,
  questionsOf,
  together,
} from './answers.ts';
import type { OverviewPart, ProbeResult, Waiting } from './instance.ts';
import type { OverviewParts } from './overview.ts';
import type { SameDirectory } from './same-directory.ts';
import { unsupportedReason } from './version.ts';

export type Healthy = Extract<ProbeResult, { status: 'healthy' }>;
export type Settled = Exclude<ProbeResult, { status: 'unknown' | 'untrusted' }>;

export interface ProbeTask {
  readonly candidate: Candidate;
  readonly connection: Connection;
  /** What to ask beyond who is there. */
  readonly parts: readonly OverviewPart[];
  /** Other directories of its own sessions that it is known to work in: asked about, too. */
  readonly alsoIn?: readonly string[];
  /** Found a moment ago by a first look that ran out of time later on: not asked again. */
  readonly identity?: Healthy;
  /** For this look. */
  readonly limitMs: number;
  /** What earlier looks of the same probe have waited already. */
  readonly waitedMs?: number;
  /** Aborts when the limit is over, or when nobody wants the answer any more. */
  readonly signal: AbortSignal;
  /** Added to a refusal: why no password was sent although one is configured. */
  readonly credentialProblem?: string | undefined;
}

/** What one look at one endpoint found. */
export interface Look {
  readonly result: Settled;
  readonly learnt: OverviewParts;
  /** Asked for, but without a usable answer. */
  readonly missing: readonly OverviewPart[];
  /** Something gave no answer in time; with more time it might. */
  readonly timedOut: boolean;
  /** Of the first answer. */
  readonly latencyMs?: number;
}

export interface ProbeDeps {
  readonly clock: Clock;
  readonly sameDirectory: SameDirectory;
  /** Called before each request. */
  readonly onRequest: () => void;
}

/** Health and paths are below one KiB. */
const MAX_IDENTITY_BYTES = 256 * 1024;

/** A permission request carries the whole diff it asks about, and a session its summary. */
const MAX_BYTES: Record<OverviewPart, number> = {
  status: 256 * 1024,
  permissions: 1024 * 1024,
  questions: 256 * 1024,
  session: 1024 * 1024,
};

/** Sessions of requests that wait; more are told without saying whose they are. */
const MAX_FAMILIES = 3;

const MAX_REASON_CHARS = 400;
const MAX_REASON_PATH_CHARS = 150;

/** Looks at one endpoint: who is there, then what it is doing. Never rejects; sends no directory but the server's own. */
export async function probe(task: ProbeTask, deps: ProbeDeps): Promise<Look> {
  const startMs = deps.clock.now();
  let latencyMs: number | undefined;
  try {
    let identity = task.identity;
    if (identity === undefined) {
      const version = await askVersion(task, deps);
      latencyMs = Math.max(0, deps.clock.now() - startMs);
      const unsupported = unsupportedReason(version);
      if (unsupported !== undefined) return settled({ status: 'unsupported', version, reason: unsupported }, latencyMs);
      identity = await askPaths(task, deps, version);
    }
    const overview = await askOverview(task, deps, identity.directory);
    return { result: identity, ...overview, ...(latencyMs === undefined ? {} : { latencyMs }) };
  } catch (error) {
    return failed(error, task, latencyMs);
  }
}

async function askVersion(task: ProbeTask, deps: ProbeDeps): Promise<string> {
  const health = healthOf(await ask(task, deps, '/global/health', MAX_IDENTITY_BYTES));
  if (health === undefined) throw malformed(task, '/global/health', 'expected {"healthy":true,"version":…}');
  if (!health.healthy) throw new Unfit(`${task.connection.endpoint.url} says that it is not healthy`);
  return health.version;
}

async function askPaths(task: ProbeTask, deps: ProbeDeps, version: string): Promise<Healthy> {
  const paths = pathOf(await ask(task, deps, '/path', MAX_IDENTITY_BYTES));
  if (paths === undefined) throw malformed(task, '/path', 'expected {"directory","worktree"} with absolute paths');
  const { candidate, signal } = task;
  const claimed = candidate.claims.directory;
  if (claimed !== undefined) {
    const sameMachine = candidate.endpoint.route === 'loopback';
    if (!(await deps.sameDirectory(claimed, paths.directory, { sameMachine, signal }))) {
      const [registered, answering] = [claimed, paths.directory].map((path) => singleLine(path, MAX_REASON_PATH_CHARS));
      throw new Unfit(`another instance answers here: registered for ${registered}, answering for ${answering}`);
    }
  }
  return { status: 'healthy', version, ...paths };
}

async function askOverview(
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
        if (value !== undefined) learnt = { ...learnt, [part]: value };
      } catch (error) {
        timedOut ||= isTimeout(error, task);
      }
    }),
  );
  learnt = await withFamilies(task, deps, learnt);
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

function allOf<T>(answers: readonly unknown[], read: (answer: unknown) => T | undefined): readonly T[] | undefined {
  const all = answers.map(read).filter((one) => one !== undefined);
  return all.length === answers.length ? all : undefined;
}

const ROUTES = { status: '/session/status', permissions: '/permission', questions: '/question' } as const;

/** Without a directory the server takes its own, as it does for its `/path`; only the session list would be the whole project's. */
function pathsFor(part: OverviewPart, directory: string, alsoIn: readonly string[]): readonly string[] {
  if (part === 'session') return [`/session?directory=${encodeURIComponent(directory)}&roots=true&limit=1`];
  const route = ROUTES[part];
  return [route, ...alsoIn.map((other) => `${route}?directory=${encodeURIComponent(other)}`)];
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

function ask(task: ProbeTask, deps: ProbeDeps, path: string, maxBytes: number): Promise<unknown> {
  deps.onRequest();
  return requestJson(task.connection, path, { timeoutMs: task.limitMs, maxBytes, signal: task.signal });
}

/** It answered, but it is not what we look for. */
class Unfit extends Error {}

function malformed(task: ProbeTask, path: string, expected: string): Unfit {
  return new Unfit(`GET ${task.connection.endpoint.url}${path}: not the answer of an opencode server; ${expected}`);
}

function settled(result: Settled, latencyMs?: number): Look {
  return { result, learnt: {}, missing: [], timedOut: false, ...(latencyMs === undefined ? {} : { latencyMs }) };
}

function failed(error: unknown, task: ProbeTask, latencyMs: number | undefined): Look {
  if (error instanceof RequestError && error.kind === 'locked') {
    return settled({ status: 'locked', reason: refusal(task) }, latencyMs);
  }
  const timedOut = isTimeout(error, task);
  const reason = timedOut
    ? `${task.connection.endpoint.url} ${latencyMs === undefined ? 'gave no answer' : 'stopped answering'} within ${(task.waitedMs ?? 0) + task.limitMs} ms`
    : error instanceof Error
      ? error.message
      : String(error);
  return { ...settled({ status: 'unhealthy', reason: singleLine(reason, MAX_REASON_CHARS) }, latencyMs), timedOut };
}

function refusal(task: ProbeTask): string {
  const { connection, credentialProblem } = task;
  const why =
    connection.credential !== undefined
      ? 'it refused the password that was sent'
      : (credentialProblem ?? 'it asks for a password and none is known for it');
  return singleLine(`${connection.endpoint.url} answered HTTP 401: ${why}`, MAX_REASON_CHARS);
}

function isTimeout(error: unknown, task: ProbeTask): boolean {
  return task.signal.aborted || (error instanceof RequestError && error.kind === 'timeout');
}
