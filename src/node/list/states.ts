import { compare } from '../../model/non-empty.ts';
import { MAX_STATED_DIRECTORIES, MAX_STATED_SESSIONS } from '../../discovery/tailnet/peer-states.ts';
import { REPORT_LIFETIME_MS, type ReportedOverview } from '../../model/report.ts';
import type { WatchedSession } from '../../model/watched.ts';
import type { WatchedServer } from '../../watch/contract.ts';
import { reportedServer } from '../../watch/reported-server.ts';
import { runs } from '../../model/watched.ts';
import type { Role } from '../access/admission.ts';
import type { Listing } from './listing.ts';

interface StatedServer {
  readonly id: string;
  readonly version: string;
  readonly dialect: string;
  readonly directory: string;
  readonly worktree: string;
  readonly pid?: number;
  /** The server's own directory first. */
  readonly overviews: readonly ReportedOverview[];
}

/** The answer to `STATES_PATH`: the list, and the state of each followed server in it. */
export interface StatesListing extends Listing {
  readonly states: readonly StatedServer[];
}

export interface StatesFor {
  /** `read` sees only a server's own directory, if it has one. */
  readonly role: Role;
  /** By the monotonic clock. */
  readonly nowMs: number;
}

/** Readers accept no larger answer. They ask the servers that do not fit themselves. */
const MAX_BYTES = 1_000_000;

/** Leaves out servers that are not followed at the moment. */
export function withStates(
  listing: Listing,
  watched: readonly WatchedServer[],
  { role, nowMs }: StatesFor,
): StatesListing {
  const byId = new Map(watched.map((server) => [server.id, server]));
  const states: StatedServer[] = [];
  let bytes = Buffer.byteLength(JSON.stringify(listing));
  for (const { id } of [...listing.instances, ...listing.services]) {
    const server = byId.get(id);
    const isCurrent = server?.checkedMs !== undefined && nowMs - server.checkedMs < REPORT_LIFETIME_MS;
    const state = isCurrent ? stateOf(server, role) : undefined;
    if (state === undefined) continue;
    bytes += Buffer.byteLength(JSON.stringify(state)) + 1;
    if (bytes > MAX_BYTES) break;
    states.push(state);
  }
  return { ...listing, states };
}

/** Without ages: holding or answering the request confirms everything in it. */
function stateOf(server: WatchedServer, role: Role): StatedServer | undefined {
  const { result, overviews: [own, ...others] = [] } = reportedServer(server) ?? {};
  if (result === undefined || own === undefined) return undefined;
  const { version, dialect, directory, worktree, pid } = result;
  const seesAll = role === 'drive' || dialect !== 'opencode-1';
  const ordered = others.toSorted(
    (one, other) =>
      Number(one.isOld ?? false) - Number(other.isOld ?? false) || compare(one.directory, other.directory),
  );
  const shown = ordered.slice(0, MAX_STATED_DIRECTORIES - 1);
  const left = ordered.slice(MAX_STATED_DIRECTORIES - 1).flatMap(sessionsIn);
  const here = seesAll
    ? [...sessionsIn(own), ...left]
    : sessionsIn(own).filter((session) => session.directory === directory);
  return {
    id: server.id,
    version,
    dialect,
    directory,
    worktree,
    ...(pid !== undefined && { pid }),
    overviews: [
      bounded(own, here),
      ...(seesAll ? shown.map((overview) => bounded(overview, sessionsIn(overview))) : []),
    ],
  };
}

function sessionsIn({ sessions = [] }: ReportedOverview): readonly WatchedSession[] {
  return sessions;
}

function bounded(overview: ReportedOverview, sessions: readonly WatchedSession[]): ReportedOverview {
  const ordered = sessions.toSorted((one, other) => rank(one) - rank(other));
  return { ...overview, sessions: ordered.slice(0, MAX_STATED_SESSIONS) };
}

/** Waiting and working sessions first, so that the bound drops only ended ones. */
function rank(session: WatchedSession): number {
  return session.state === 'waiting' ? 0 : runs(session) ? 1 : 2;
}
