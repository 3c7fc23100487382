import type { EndpointRecord, EndpointTable } from './endpoint-table.ts';
import type { Instance } from '../model/instance.ts';
import { byPreference } from '../identity/merge.ts';
import { isSame } from '../identity/names.ts';
import { identityOf, isVouchedFor } from '../identity/naming.ts';

/** What leads to one process, as far as it was known when somebody reached it. */
export interface SameProcess {
  /** The way by which it was reached first. */
  readonly origin: EndpointRecord;
  /** Ways that were proven to lead to that process, each with how often it had lapsed by then: another time, and it may be another process. */
  readonly proven: ReadonlyMap<EndpointRecord, number>;
}

type Shown = readonly Instance[];

/** What leads to the process that was just reached by `origin`. */
export function sameProcessAs(origin: EndpointRecord, instances: Shown, table: EndpointTable): SameProcess {
  return { origin, proven: extend(new Map([[origin, origin.lapses]]), instances, table) };
}

/** The same as it is known now: without what has lapsed since, with what has been proven since. */
export function stillSameProcess(sameProcess: SameProcess, instances: Shown, table: EndpointTable): SameProcess {
  return { origin: sameProcess.origin, proven: extend(sameProcess.proven, instances, table) };
}

/**
 * The registered ways to that process, best first. Besides what is proven, its own registration, and under its name
 * what carries its id: a tunnel that is back has a port that nothing was proven of. What anyone on the LAN can advertise
 * is its own proof or none.
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

/** Of every instance that one of these ways leads to now: its healthy ways, since nothing but proof joins those. */
function extend(known: SameProcess['proven'], instances: Shown, table: EndpointTable): SameProcess['proven'] {
  const proven = new Map([...known].filter(([record, lapses]) => stands(record, lapses, table)));
  for (const { endpoints } of new Set(instances.map(({ server }) => server))) {
    const records = table.recordsOf(endpoints);
    if (!records.some((record) => proven.has(record))) continue;
    for (const record of records) if (record.healthy) proven.set(record, record.lapses);
  }
  return proven;
}

function stands(record: EndpointRecord, lapses: number, table: EndpointTable): boolean {
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
