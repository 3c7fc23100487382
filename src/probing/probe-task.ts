import type { Clock } from '../base/clock.ts';
import type { Candidate } from '../model/candidate.ts';
import { type Connection, RequestError } from '../http/exchange.ts';
import type { OverviewPart, ProbeResult } from '../model/instance.ts';
import { directoryOf } from './answers.ts';
import type { OtherDirectory, OverviewParts } from './overview.ts';
import type { SameDirectory } from './same-directory.ts';

export type Healthy = Extract<ProbeResult, { status: 'healthy' }>;
export type Settled = Exclude<ProbeResult, { status: 'unknown' | 'untrusted' }>;
export type Identified = Extract<Settled, { status: 'healthy' | 'unsupported' }>;

export interface ProbeTask {
  readonly candidate: Candidate;
  readonly connection: Connection;
  /** What to ask beside the identity. */
  readonly parts: readonly OverviewPart[];
  /** Directories to ask about beside the server's own. */
  readonly elsewhere?: readonly OtherDirectory[] | undefined;
  /** What an earlier probe learnt about the server's own directory: how the latest turn ended, and whose requests wait, is not requested twice. */
  readonly known?: OverviewParts | undefined;
  /** From an earlier probe. */
  readonly before?: Healthy | undefined;
  /** From an earlier probe; saves asking for it. */
  readonly version?: string | undefined;
  /** Found a moment ago; saves asking for it. */
  readonly identity?: Healthy;
  readonly limitMs: number;
  /** Time that the first look of the same probe took. */
  readonly waitedMs?: number;
  /** Aborts after `limitMs`, or when no caller waits any more. */
  readonly signal: AbortSignal;
  /** Why no password is sent although one is configured. Part of the reason if the server refuses. */
  readonly credentialProblem?: string | undefined;
  /** Why nothing may be sent: a required header could not be read. */
  readonly lock?: string | undefined;
}

/** The result of a look at one directory. */
export interface DirectoryLook {
  readonly learnt: OverviewParts;
  /** Parts without a usable answer. */
  readonly missing: readonly OverviewPart[];
  /** The server has no session there any more, so nothing was asked. */
  readonly isForeign?: true;
}

/** The result of a look at one endpoint. */
export interface Look extends DirectoryLook {
  readonly result: Settled;
  /** Looks at other directories than the server's own, by directory. */
  readonly elsewhere?: ReadonlyMap<string, DirectoryLook>;
  /** OpenCode 2 only: `elsewhere` has every directory. */
  readonly isWhole?: boolean;
  /** Answers that do not fit the contract, with route and field. */
  readonly misfits?: readonly string[];
  /** More time might have given more answers. */
  readonly timedOut: boolean;
  /** The failure may be temporary. */
  readonly notNow?: true;
  /** Time until the first answer. */
  readonly latencyMs?: number;
}

export interface ProbeDeps {
  readonly clock: Clock;
  readonly sameDirectory: SameDirectory;
  /** Called before each request. */
  readonly onRequest: () => void;
}

/**
 * Whether the session that a server gives for `GET /session/:id` is in `directory`; only then may a request name the directory.
 * Rejects if there is no answer.
 */
export async function isOfDirectory(session: Promise<unknown>, directory: string): Promise<boolean> {
  try {
    return directoryOf(await session) === directory;
  } catch (error) {
    if (error instanceof RequestError && error.kind === 'status' && error.status === 404) return false;
    throw error;
  }
}
