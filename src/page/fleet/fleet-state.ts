import { sentence, singleLine } from '../../base/plain-text.ts';
import type { Instance, Snapshot } from '../../model/instance.ts';
import { shownNotes } from '../../operations/listing/instances.ts';
import type { PageCaller } from '../contract.ts';
import { isForGuests } from '../session/find-session.ts';
import { type PageSession, type RowDeps, sessionRows } from './session-rows.ts';

/** More than anybody reads through. */
const MAX_INSTANCES = 500;
const MAX_SESSIONS = 500;
const MAX_DIRECTORY_CHARS = 400;
const MAX_REASON_CHARS = 400;

/** One line of the stream: everything that the page lists. */
export interface FleetState {
  readonly machines: readonly { readonly host: string; readonly state: 'ok' | 'offline'; readonly reason?: string }[];
  readonly instances: readonly {
    readonly name: string;
    readonly host: string;
    readonly directory?: string;
    readonly state: Instance['state'];
    readonly reason?: string;
    readonly version?: string;
  }[];
  readonly sessions: readonly PageSession[];
  readonly notes: readonly string[];
}

/** A snapshot as a caller sees it. Pure but for `deps`. */
export function fleetState(snapshot: Snapshot, { isGuest }: Pick<PageCaller, 'isGuest'>, deps: RowDeps): FleetState {
  const shown = snapshot.instances.filter((one) => isGuest !== true || isForGuests(one));
  const instances = shown.slice(0, MAX_INSTANCES);
  const rows = instances.flatMap((one) =>
    sessionRows(one, deps)
      .filter((row) => isGuest !== true || isOwn(one, row))
      .map((row) => ({ row, isPlaced: (one.directory ?? '') !== '', key: `${one.server.key}\0${row.id}` })),
  );
  // OpenCode 2 sessions appear twice: at the service and at their directory. The directory's row wins.
  const placed = new Set(rows.filter(({ isPlaced }) => isPlaced).map(({ key }) => key));
  const sessions = rows.filter(({ isPlaced, key }) => isPlaced || !placed.has(key)).map(({ row }) => row);
  const left = shown.length - instances.length + Math.max(0, sessions.length - MAX_SESSIONS);
  return {
    machines: machinesOf(instances),
    instances: instances.map(instanceShown),
    // Waiting sessions first, so that the bound never hides one.
    sessions: sessions.toSorted((one, other) => rank(one) - rank(other)).slice(0, MAX_SESSIONS),
    notes: [
      ...(isGuest === true ? [] : shownNotes(snapshot)),
      ...(left > 0 ? [`${left} more instances and sessions are not shown`] : []),
    ],
  };
}

function isOwn({ directory }: Instance, row: PageSession): boolean {
  return directory === undefined || row.directory === directory;
}

function rank({ state }: PageSession): number {
  return state === 'waiting' ? 0 : state === 'idle' ? 2 : 1;
}

function instanceShown({ name, host, directory, state, reason, server }: Instance): FleetState['instances'][number] {
  const [{ result }] = server.endpoints;
  const version = result.status === 'healthy' || result.status === 'unsupported' ? result.version : undefined;
  return {
    name: singleLine(name, MAX_DIRECTORY_CHARS),
    host: singleLine(host, MAX_DIRECTORY_CHARS),
    ...(directory !== undefined && { directory: singleLine(directory, MAX_DIRECTORY_CHARS) }),
    state,
    ...(reason !== undefined && { reason: sentence(reason, MAX_REASON_CHARS) }),
    ...(version !== undefined && { version: singleLine(version, 40) }),
  };
}

function machinesOf(instances: readonly Instance[]): FleetState['machines'] {
  return [...new Set(instances.map(({ host }) => host))].map((host) => {
    const all = instances.filter((one) => one.host === host);
    const isThere = all.some(({ state }) => state !== 'offline');
    const reason = all.find(({ reason: why }) => why !== undefined)?.reason;
    return {
      host: singleLine(host, MAX_DIRECTORY_CHARS),
      state: isThere ? 'ok' : 'offline',
      ...(!isThere && reason !== undefined && { reason: sentence(reason, MAX_REASON_CHARS) }),
    };
  });
}
