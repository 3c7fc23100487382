import { isSame, type NameRecord } from '../identity/names.ts';
import { hostOf, nameable, nameableIn, placeOf } from '../identity/naming.ts';
import type { GoneInstance, Instance, Overview, Server, Snapshot } from '../model/instance.ts';
import { type EndpointRecord, MAX_MISSED_ROUNDS } from './endpoint-record.ts';

interface Previous {
  readonly snapshot: Snapshot;
  readonly gone: ReadonlyMap<string, GoneInstance>;
}

/** The record of an endpoint that is registered, or was at the last view. */
export type RecordOf = (id: string) => { readonly record: EndpointRecord; readonly registered: boolean } | undefined;

/** Directories in which their server no longer works. They keep their names, so that calls can still name them. */
export function restingInstances(
  names: readonly NameRecord[],
  previous: Previous,
  servers: readonly Server[],
): readonly Instance[] {
  if (names.length === 0) return [];
  const before = shownBefore(previous);
  const serversAt = serversByMember(servers);
  return names.flatMap((record) => {
    const last = before.get(record.name) ?? previous.gone.get(record.name);
    return restingInstance(record, last?.overview, serversAt) ?? [];
  });
}

/** The names that lead to no instance now, each with the reason. The first reason is kept. */
export function goneInstances(
  names: readonly NameRecord[],
  previous: Previous,
  recordOf: RecordOf,
): ReadonlyMap<string, GoneInstance> {
  if (names.length === 0) return new Map();
  const before = shownBefore(previous);
  return new Map(
    names.map((one) => [one.name, previous.gone.get(one.name) ?? goneInstance(one, before.get(one.name), recordOf)]),
  );
}

/** The instances shown last, by each of their names. */
function shownBefore({ snapshot: { instances, resting } }: Previous): ReadonlyMap<string, Instance> {
  return new Map(
    [...instances, ...resting].flatMap((one) => [one.name, ...(one.aliases ?? [])].map((name) => [name, one])),
  );
}

/** Servers by endpoint id, and by lineage, since a restarted server has a new registration. */
function serversByMember(servers: readonly Server[]): ReadonlyMap<string, ReadonlySet<Server>> {
  const found = new Map<string, Set<Server>>();
  for (const server of servers)
    for (const { id, lineage } of nameable(server).members)
      for (const place of [id, lineage]) found.set(place, (found.get(place) ?? new Set<Server>()).add(server));
  return found;
}

/** The directory that had this name, if its server is known. Undefined for a server's own directory, which goes with the server. */
function restingInstance(
  { name, anchor, members }: NameRecord,
  overview: Overview | undefined,
  serversAt: ReturnType<typeof serversByMember>,
): Instance | undefined {
  const { directory, lineage } = placeOf(anchor);
  if (directory === undefined) return undefined;
  const known = [anchor, ...members];
  for (const place of [...known.map((member) => placeOf(member).endpointId), lineage]) {
    const [server, ...others] = serversAt.get(place) ?? [];
    // If several have its lineage, it is unknown which of them worked there.
    if (server === undefined || others.length > 0) continue;
    const { key, members: now } = nameableIn(server, directory, new Map());
    if (now.some((member) => known.some((one) => isSame(member, one))))
      return { server, key, name, host: hostOf(server), directory, state: 'unknown', ...(overview && { overview }) };
  }
  return undefined;
}

function goneInstance({ name, anchor }: NameRecord, last: Instance | undefined, recordOf: RecordOf): GoneInstance {
  const found = recordOf(placeOf(anchor).endpointId);
  const directory = last?.directory ?? last?.server.claims.directory;
  const lastSeenMs = Math.max(last?.lastSeenMs ?? 0, found?.record.lastSeenMs ?? 0);
  return {
    name,
    host: last?.host ?? 'unknown',
    reason: reasonOf(found),
    ...(directory === undefined ? {} : { directory }),
    ...(lastSeenMs === 0 ? {} : { lastSeenMs }),
    ...(last?.overview === undefined ? {} : { overview: last.overview }),
  };
}

function reasonOf(found: ReturnType<RecordOf>): string {
  if (found === undefined || !found.registered) return 'it is no longer registered';
  const { result, unlisted } = found.record;
  if (unlisted && result.status === 'unhealthy')
    return `it did not answer for ${MAX_MISSED_ROUNDS} rounds (${result.reason})`;
  return 'another registration has taken its place';
}
