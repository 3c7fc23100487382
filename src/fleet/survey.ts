import type { Clock } from '../base/clock.ts';
import type { EndpointRecord } from './endpoint-table.ts';
import { OVERVIEW_PARTS } from '../model/instance.ts';
import type { Batch } from '../probing/prober.ts';
import { usableReport } from '../probing/report.ts';

/** Whether a directory is another server's own, on the machine of that endpoint. */
type IsTaken = (record: EndpointRecord, directory: string) => boolean;

export interface SurveyDeps {
  /** As is known when it is called; see `EndpointTable`. */
  readonly takenDirectories: () => IsTaken;
  /** Whether the version that the last round found is good enough. */
  readonly trustsVersion: boolean;
  /** Whether the other directories of a server are taken from its watcher, where it has one. They then go into no request. */
  readonly trustsReports: boolean;
  readonly clock: Clock;
  readonly deadlineMs: number;
}

/** Share of the health deadline after which the next way is asked beside one that is silent: a little over a first look. */
const NEXT_WAY = 0.3;

/** A server's endpoints, best first. */
type Endpoints = readonly EndpointRecord[];

/**
 * Asks each server of `due` what it is doing in its own directory, those asked longest ago first, and then each of `servers` what it
 * is doing in others. What looks interrupted in one server may run in another, which is asked about it last.
 */
export async function askOverviews(
  servers: readonly Endpoints[],
  due: ReadonlySet<Endpoints>,
  batch: Batch<EndpointRecord>,
  deps: SurveyDeps,
): Promise<void> {
  const ordered = servers.toSorted((one, other) => (one[0]?.probedAtMs ?? 0) - (other[0]?.probedAtMs ?? 0));
  const taken = deps.takenDirectories();
  const asked = await Promise.all(
    ordered.map(async (records) => {
      if (due.has(records))
        await askOne(
          records
            .filter(({ askable }) => askable)
            .toSorted((one, other) => Number(isReported(other)) - Number(isReported(one))),
          batch,
          deps,
        );
      if (deps.trustsReports && shareReport(records)) return undefined;
      return await askElsewhere(records, batch, taken);
    }),
  );
  const stillTaken = deps.takenDirectories();
  await Promise.all(
    ordered.map(async (records, index) => {
      const before = asked[index];
      if (before !== undefined) await askElsewhere(records, batch, stillTaken, before);
    }),
  );
}

function isReported({ candidate, healthy }: EndpointRecord): boolean {
  return healthy && usableReport(candidate) !== undefined;
}

/** What the watcher by one way says of other directories all ways know; false where none has a watcher. */
function shareReport(records: Endpoints): boolean {
  const reported = records.find(isReported);
  if (reported === undefined) return false;
  for (const other of records) if (other !== reported) other.copyElsewhere(reported);
  return true;
}

/**
 * By the endpoint that answered last. What one endpoint of a server finds out all know: any of them may be the last that is left.
 *
 * @param before directories that were asked about in this survey
 * @returns those asked about now
 */
async function askElsewhere(
  records: Endpoints,
  batch: Batch<EndpointRecord>,
  isTaken: IsTaken,
  before?: readonly string[],
): Promise<readonly string[]> {
  const askedAtMs = ({ known }: EndpointRecord): number => known?.overview.askedAtMs ?? 0;
  const [record] = records.filter(({ healthy }) => healthy).toSorted((one, other) => askedAtMs(other) - askedAtMs(one));
  if (record === undefined) return [];
  const others = records.filter((other) => other !== record);
  for (const other of others) record.takeElsewhere(other);
  if (before === undefined) record.askedElsewhere = [];
  const elsewhere = record
    .otherDirectories((directory) => isTaken(record, directory))
    .filter(({ directory }) => before?.includes(directory) !== true);
  if (elsewhere.length > 0) await batch.look(record, { parts: [], elsewhere });
  for (const other of others) other.copyElsewhere(record);
  return elsewhere.map(({ directory }) => directory);
}

/** By its best way; by the next as well where that one fails or is silent. */
async function askOne(
  records: readonly EndpointRecord[],
  batch: Batch<EndpointRecord>,
  { clock, deadlineMs, trustsVersion }: SurveyDeps,
): Promise<void> {
  const asked: Promise<unknown>[] = [];
  for (const [index, record] of records.entries()) {
    const looking = batch.look(record, { parts: OVERVIEW_PARTS, trustsVersion });
    asked.push(looking);
    if (index === records.length - 1) break;
    const silence = new AbortController();
    const outcome = await Promise.race([looking, clock.sleep(deadlineMs * NEXT_WAY, silence.signal)]);
    silence.abort();
    if (outcome?.result.status === 'healthy') return;
  }
  await Promise.all(asked);
}
