import type { Clock } from '../base/clock.ts';
import type { Candidate } from '../model/candidate.ts';
import { type Connection, requestDated, RequestError, requestJson } from '../http/exchange.ts';
import type { OverviewPart, ProbeResult } from '../model/instance.ts';
import { directoryOf } from './answers.ts';
import type { OtherDirectory, OverviewParts } from './overview.ts';
import type { SameDirectory } from './same-directory.ts';

export type Healthy = Extract<ProbeResult, { status: 'healthy' }>;
export type Settled = Exclude<ProbeResult, { status: 'unknown' | 'untrusted' }>;

export interface ProbeTask {
  readonly candidate: Candidate;
  readonly connection: Connection;
  /** What to ask beyond who is there. */
  readonly parts: readonly OverviewPart[];
  /** Directories to ask about beside its own. */
  readonly elsewhere?: readonly OtherDirectory[] | undefined;
  /** What an earlier probe learnt of its own directory: how the latest turn ended and whose a request is are not asked again while they are the same. */
  readonly known?: OverviewParts | undefined;
  /** What an earlier probe found there. */
  readonly before?: Healthy | undefined;
  /** From an earlier probe, and good enough for this one. */
  readonly version?: string | undefined;
  /** Found a moment ago, and not asked again. */
  readonly identity?: Healthy;
  /** For this look. */
  readonly limitMs: number;
  /** What earlier looks of the same probe have waited already. */
  readonly waitedMs?: number;
  /** Aborts when the limit is over, or when nobody wants the answer any more. */
  readonly signal: AbortSignal;
  /** Added to a refusal: why no password was sent although one is configured. */
  readonly credentialProblem?: string | undefined;
  /** Why nothing may be sent at all: a header that it needs is missing. */
  readonly lock?: string | undefined;
}

/** What one look learnt of a server's work in one directory. */
export interface DirectoryLook {
  readonly learnt: OverviewParts;
  /** Asked for, but without a usable answer. */
  readonly missing: readonly OverviewPart[];
  /** The server has no such session there any more, so that nothing was asked. */
  readonly isForeign?: true;
}

/** What one look at one endpoint found. */
export interface Look extends DirectoryLook {
  readonly result: Settled;
  /** What the directories that it was asked about beside its own are like. */
  readonly elsewhere?: ReadonlyMap<string, DirectoryLook>;
  /** Of OpenCode 2: there are no other directories, as far back as is looked. */
  readonly isWhole?: boolean;
  /** Answers of no form that is known, with route and field. */
  readonly misfits?: readonly string[];
  /** Something gave no answer in time; with more time it might. */
  readonly timedOut: boolean;
  /** Refused by a server, or on the way to it, for something that may be over in a moment. */
  readonly notNow?: true;
  /** Of the first answer. */
  readonly latencyMs?: number;
}

export interface ProbeDeps {
  readonly clock: Clock;
  readonly sameDirectory: SameDirectory;
  /** Called before each request. */
  readonly onRequest: () => void;
}

/** One request of the probe. Longer strings in its answer are cut, where that is wanted. Rejects with `RequestError`. */
export function ask(
  task: ProbeTask,
  deps: ProbeDeps,
  path: string,
  maxBytes: number,
  maxStringBytes?: number,
): Promise<unknown> {
  deps.onRequest();
  const limits = { timeoutMs: task.limitMs, maxBytes, maxStringBytes, signal: task.signal };
  return requestJson(task.connection, path, limits);
}

/** As `ask`, with the time by the server's clock. */
export function askDated(
  task: ProbeTask,
  deps: ProbeDeps,
  path: string,
  maxBytes: number,
  maxStringBytes?: number,
): ReturnType<typeof requestDated> {
  deps.onRequest();
  return requestDated(task.connection, path, {
    timeoutMs: task.limitMs,
    maxBytes,
    maxStringBytes,
    signal: task.signal,
  });
}

/**
 * Whether a server has a session in that directory, by its answer to `GET /session/:id`: only then may the directory be named to it.
 * Rejects where there is no answer.
 */
export async function isOfDirectory(session: Promise<unknown>, directory: string): Promise<boolean> {
  try {
    return directoryOf(await session) === directory;
  } catch (error) {
    if (error instanceof RequestError && error.kind === 'status' && error.status === 404) return false;
    throw error;
  }
}

/** Whether more time might have given an answer. */
export function isTimeout(error: unknown, task: ProbeTask): boolean {
  return task.signal.aborted || (error instanceof RequestError && error.kind === 'timeout');
}
