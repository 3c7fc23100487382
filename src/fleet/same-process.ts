import { byPreference } from '../identity/merge.ts';
import { isSame } from '../identity/names.ts';
import { identityOf, isVouchedFor } from '../identity/naming.ts';
import type { Pair } from '../identity/prover.ts';
import { suspects } from '../identity/suspects.ts';
import { ROUTES } from '../model/candidate.ts';
import type { Instance, ProbedEndpoint } from '../model/instance.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';

/** What leads to one process, as known when a caller reached it. */
export interface SameProcess {
  /** The endpoint that was reached first. */
  readonly origin: EndpointRecord;
  /** Endpoints proven to lead to that process, each with its number of lapses at that time: after another lapse it may lead elsewhere. */
  readonly proven: ReadonlyMap<EndpointRecord, number>;
}

type Shown = readonly Instance[];

/** What leads to the process that `origin` just reached. */
export function sameProcessAs(origin: EndpointRecord, instances: Shown, table: EndpointTable): SameProcess {
  return { origin, proven: extend(new Map([[origin, origin.lapses]]), instances, table) };
}

/** The same process by what is known now: without endpoints that lapsed since, with those proven since. */
export function stillSameProcess(sameProcess: SameProcess, instances: Shown, table: EndpointTable): SameProcess {
  return { origin: sameProcess.origin, proven: extend(sameProcess.proven, instances, table) };
}

/**
 * The registered endpoints of that process, best first: the proven ones, the origin, and those under its name that are registered with
 * the same process id. The last matter for a reconnected tunnel: its port is new, so nothing is proven about it yet. A LAN
 * announcement counts only if proven, because anyone can send one.
 */
export function endpointsTo(
  { origin, proven }: SameProcess,
  { name, instances, table }: { readonly name: string; readonly instances: Shown; readonly table: EndpointTable },
): readonly EndpointRecord[] {
  const found = new Set<EndpointRecord>(proven.keys());
  if (table.get(origin.id) === origin) found.add(origin);
  const named = instances.find((one) => one.name === name || one.aliases?.includes(name));
  for (const record of table.recordsOf(named?.server.endpoints ?? []))
    if (isRegisteredAs(record, origin)) found.add(record);
  return [...found].toSorted(byPreference);
}

/** Drops endpoints that lapsed. Adds the healthy endpoints of each instance that a proven one leads to: they are joined only by proof. */
function extend(known: SameProcess['proven'], instances: Shown, table: EndpointTable): SameProcess['proven'] {
  const proven = new Map([...known].filter(([record, lapses]) => isStillProven(record, lapses, table)));
  for (const { endpoints } of new Set(instances.map(({ server }) => server))) {
    const records = table.recordsOf(endpoints);
    if (!records.some((record) => proven.has(record))) continue;
    for (const record of records) if (record.healthy) proven.set(record, record.lapses);
  }
  return proven;
}

function isStillProven(record: EndpointRecord, lapses: number, table: EndpointTable): boolean {
  return record.healthy && record.lapses === lapses && table.get(record.id) === record;
}

function isRegisteredAs({ id, candidate }: EndpointRecord, origin: EndpointRecord): boolean {
  if (!isVouchedFor(candidate) || !isVouchedFor(origin.candidate)) return false;
  const processId = origin.candidate.claims.id;
  if (processId !== undefined) return candidate.claims.id === processId;
  return (
    id === origin.id && candidate.claims.id === undefined && isSame(identityOf(candidate), identityOf(origin.candidate))
  );
}

/** Pairs of endpoints that may lead to one process, with what a proof needs. */
export function pairsToProve(table: EndpointTable, nowMs: number): readonly Pair[] {
  const routeRank = ({ candidate }: ProbedEndpoint): number => ROUTES.indexOf(candidate.endpoint.route);
  return suspects([...table.all()], nowMs).flatMap(({ keys, endpoints }): Pair[] => {
    const [one, other] = table.recordsOf(endpoints.toSorted((a, b) => routeRank(a) - routeRank(b)));
    if (one?.connection === undefined || other?.connection === undefined) return [];
    const dialect = one.lastHealthy?.dialect ?? 'opencode-1';
    return [{ keys, connections: [one.connection, other.connection], dialect }];
  });
}
