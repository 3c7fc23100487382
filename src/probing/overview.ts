import type { ServerStatus, ListedSession } from './answers.ts';
import type { Overview, OverviewPart, SessionSummary, Waiting } from '../model/instance.ts';
import type { ReportedOverview } from '../model/report.ts';

/** What one look learnt of a server's work in one directory. Parts that it did not learn are absent. */
export interface OverviewParts {
  readonly status?: ServerStatus;
  readonly permissions?: readonly Waiting[];
  readonly questions?: readonly Waiting[];
  /** The latest session; null if there is none. */
  readonly session?: SessionSummary | null;
  /** Only in the server's own directory: the others in which its sessions were used lately. */
  readonly recent?: RecentDirectories;
  /** See `Overview`. */
  readonly witness?: string;
  /** See `Overview`. */
  readonly isOld?: boolean;
}

/** Directories of a server's sessions that were used in the last ten minutes by its clock. */
export interface RecentDirectories {
  /** The latest session of each directory, preferably a root session; most recently used first. */
  readonly sessions: ReadonlyMap<string, ListedSession>;
  /** How many more there are. */
  readonly more: number;
  /** The project of the server's own directory, if one of its sessions is listed. */
  readonly ownProject?: string;
}

/** A directory to ask about beside the server's own. */
export interface OtherDirectory {
  readonly directory: string;
  /** See `Overview`. Checked first, unless the server listed the directory just now. */
  readonly witness?: string | undefined;
  readonly isListed: boolean;
  readonly session?: SessionSummary | undefined;
  readonly known?: OverviewParts | undefined;
}

/** The parts known of one endpoint, and the overview made of them. */
export interface KnownOverview {
  readonly parts: OverviewParts;
  readonly overview: Overview;
}

/**
 * Merges new parts into known ones. A part without an answer keeps its value and is named in `stale`. If nothing was learnt, returns
 * `known`, age included.
 */
export function updateOverview(
  known: KnownOverview | undefined,
  learnt: OverviewParts,
  missing: readonly OverviewPart[],
  nowMs: number,
): KnownOverview | undefined {
  if (Object.keys(learnt).length === 0) return known;
  const parts = { ...known?.parts, ...learnt };
  return {
    parts,
    overview: {
      activity: parts.status?.activity ?? { kind: 'unknown' },
      running: parts.status?.running ?? [],
      ...(parts.session ? { session: parts.session } : {}),
      ...(parts.witness === undefined ? {} : { witness: parts.witness }),
      ...(parts.isOld === true ? { isOld: true } : {}),
      waiting: waitingOf(parts),
      askedAtMs: nowMs,
      ...(missing.length > 0 ? { stale: missing } : {}),
    },
  };
}

/** A watcher's report, as if the server had been asked at `nowMs`. */
export function overviewOfReport(of: ReportedOverview, nowMs: number): KnownOverview {
  const { directory: _, ...reported } = of;
  const { activity, running, waiting, session = null, witness, isOld } = reported;
  return {
    parts: {
      status: { activity, running },
      permissions: waiting.filter(({ kind }) => kind === 'permission'),
      questions: waiting.filter(({ kind }) => kind === 'question'),
      session,
      ...(witness === undefined ? {} : { witness }),
      ...(isOld === true ? { isOld } : {}),
    },
    overview: { ...reported, waiting: waiting.slice(0, MAX_SHOWN), askedAtMs: nowMs },
  };
}

/** Requests in one overview; more are not counted. */
const MAX_SHOWN = 10;

/** The waiting requests, without those that an abort left behind: opencode 1.18.33 still lists them, but their session does not run. */
function waitingOf({ status, permissions = [], questions = [] }: OverviewParts): readonly Waiting[] {
  const running = new Set(status?.running);
  return [...permissions, ...questions]
    .filter(({ sessionId }) => status === undefined || running.has(sessionId))
    .slice(0, MAX_SHOWN);
}
