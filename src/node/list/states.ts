import { compare } from '../../model/non-empty.ts';
import type { Overview, ProbedEndpoint, Server } from '../../model/instance.ts';
import type { WatchedSession } from '../../model/watched.ts';
import type { WatchedServer } from '../../watch/contract.ts';
import { runs } from '../../watch/session-ledger.ts';
import type { Role } from '../access/admission.ts';
import type { Listing } from './listing.ts';

/** What one server is doing in one directory. Ages are not said: that a request for the states is held, or answered, confirms all of it. */
export interface StatedOverview extends Omit<Overview, 'askedAtMs' | 'stale' | 'sessions'> {
  readonly directory: string;
  readonly sessions: readonly WatchedSession[];
}

interface StatedServer {
  readonly id: string;
  readonly version: string;
  readonly dialect: string;
  readonly directory: string;
  readonly worktree: string;
  readonly pid?: number;
  /** The server's own directory first. */
  readonly overviews: readonly StatedOverview[];
}

/** The answer to `STATES_PATH`: the list, and what those in it are doing that are followed. */
export interface StatesListing extends Listing {
  readonly states: readonly StatedServer[];
}

export interface StatesFor {
  /** Who may only read sees of a server with a directory of its own nothing else than that. */
  readonly role: Role;
  /** By the monotonic clock. */
  readonly nowMs: number;
}

/** As old as a state may be. */
const CURRENT_MS = 60_000;
const MAX_OVERVIEWS = 64;
const MAX_SESSIONS = 50;
/** Readers take no larger answer. What does not fit is left out, and they ask for it themselves. */
const MAX_BYTES = 1_000_000;

/** A server that is not followed just now is left out. */
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
    const isCurrent = server?.checkedMs !== undefined && nowMs - server.checkedMs < CURRENT_MS;
    const state = isCurrent ? stateOf(server, role) : undefined;
    if (state === undefined) continue;
    bytes += Buffer.byteLength(JSON.stringify(state)) + 1;
    if (bytes > MAX_BYTES) break;
    states.push(state);
  }
  return { ...listing, states };
}

function stateOf({ id, instances, sessions }: WatchedServer, role: Role): StatedServer | undefined {
  const asked = instances[0] && latestAsked(instances[0].server);
  if (asked?.result.status !== 'healthy' || asked.overview === undefined) return undefined;
  const { version, dialect, directory, worktree, pid } = asked.result;
  const seesAll = role === 'drive' || dialect !== 'opencode-1';
  const others = seesAll ? [...(asked.elsewhere ?? [])].filter(([other]) => other !== directory) : [];
  const ordered = others.toSorted(
    ([one, { isOld }], [other, { isOld: isOtherOld }]) =>
      Number(isOld ?? false) - Number(isOtherOld ?? false) || compare(one, other),
  );
  const shown = [[directory, asked.overview] as const, ...ordered].slice(0, MAX_OVERVIEWS);
  const places = new Set(shown.map(([place]) => place));
  // Of a directory in which nothing runs any more there may be nothing else to say.
  const placeOf = (session: WatchedSession): string => (places.has(session.directory) ? session.directory : directory);
  const visible = seesAll ? sessions : sessions.filter((one) => one.directory === directory);
  return {
    id,
    version,
    dialect,
    directory,
    worktree,
    ...(pid !== undefined && { pid }),
    overviews: shown.map(([place, overview]) => {
      const here = visible.filter((one) => placeOf(one) === place).toSorted((one, other) => rank(one) - rank(other));
      return statedOverview(place, overview, here.slice(0, MAX_SESSIONS));
    }),
  };
}

/** Who needs somebody, and who works, before those that ended: the bound never hides them. */
function rank(session: WatchedSession): number {
  return session.state === 'waiting' ? 0 : runs(session) ? 1 : 2;
}

function statedOverview(directory: string, overview: Overview, sessions: readonly WatchedSession[]): StatedOverview {
  const { askedAtMs: _, stale: __, ...stated } = overview;
  return { directory, ...stated, sessions };
}

/** Several ways lead to one server: of the one that it was asked by last. */
function latestAsked({ endpoints }: Server): ProbedEndpoint | undefined {
  const askedAtMs = ({ overview }: ProbedEndpoint): number => overview?.askedAtMs ?? 0;
  const healthy = endpoints.filter(({ result }) => result.status === 'healthy');
  return healthy.toSorted((one, other) => askedAtMs(other) - askedAtMs(one))[0];
}
