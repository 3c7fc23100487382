import type { Doing, ListedSession } from './answers.ts';
import type { Overview, OverviewPart, SessionSummary, Waiting } from '../model/instance.ts';
import type { ReportedOverview } from '../model/report.ts';

/** What one look learnt of a server's work in one directory; a part that is absent was not learnt. */
export interface OverviewParts {
  readonly status?: Doing;
  readonly permissions?: readonly Waiting[];
  readonly questions?: readonly Waiting[];
  /** Null: there is none. */
  readonly session?: SessionSummary | null;
  /** Of the server's own directory only: the others in which its sessions were used lately. */
  readonly recent?: RecentDirectories;
  /** See `Overview`. */
  readonly witness?: string;
  /** See `Overview`. */
  readonly isOld?: boolean;
}

/** Directories of a server's own sessions that were used in the last ten minutes, by the server's clock. */
export interface RecentDirectories {
  /** With the latest session of each, a root one where one is listed; the most recently used first. */
  readonly sessions: ReadonlyMap<string, ListedSession>;
  /** How many more there are. */
  readonly more: number;
  /** The project of the server's own directory, where a session of that is listed. */
  readonly ownProject?: string;
}

/** A directory to ask about beside the server's own, and what is known of it. */
export interface OtherDirectory {
  readonly directory: string;
  /** See `Overview`. It is asked for first, unless the server listed it just now. */
  readonly witness?: string | undefined;
  readonly isListed: boolean;
  readonly session?: SessionSummary | undefined;
  readonly known?: OverviewParts | undefined;
}

/** The parts known of one endpoint, and the overview they make. */
export interface KnownOverview {
  readonly parts: OverviewParts;
  readonly overview: Overview;
}

/**
 * Puts what was learnt over what was known. A part that was asked for and not answered keeps its last value and is
 * named in `stale`. Where nothing at all was learnt, the known overview stays as it is, with its age.
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

/** What a watcher says, as if it had been asked at `nowMs`. */
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

/** Listed at most; the others are counted by nobody. */
const MAX_SHOWN = 10;

/** What an abort left behind is still listed (opencode 1.18.33), but its session does not run, and waits for nothing. */
function waitingOf({ status, permissions = [], questions = [] }: OverviewParts): readonly Waiting[] {
  const running = new Set(status?.running);
  return [...permissions, ...questions]
    .filter(({ sessionId }) => status === undefined || running.has(sessionId))
    .slice(0, MAX_SHOWN);
}
