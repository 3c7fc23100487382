import type { Clock } from '../base/clock.ts';
import type { EndpointRecord } from './endpoint-table.ts';
import { OVERVIEW_PARTS } from '../model/instance.ts';
import type { Batch } from '../probing/prober.ts';

export interface SurveyDeps {
  /** Whether a directory is another server's own, on the machine of that endpoint. */
  readonly isTaken: (record: EndpointRecord, directory: string) => boolean;
  /** Whether the version that the last round found is good enough. */
  readonly trustsVersion: boolean;
  readonly clock: Clock;
  readonly deadlineMs: number;
}

/** Share of the health deadline after which the next way is asked beside one that is silent: a little over a first look. */
const NEXT_WAY = 0.3;

/** A server's endpoints, best first. */
type Endpoints = readonly EndpointRecord[];

/**
 * Asks each server of `due` what it is doing in its own directory, those asked longest ago first, and then each of `servers` what it
 * is doing in others.
 */
export async function askOverviews(
  servers: readonly Endpoints[],
  due: ReadonlySet<Endpoints>,
  batch: Batch<EndpointRecord>,
  deps: SurveyDeps,
): Promise<void> {
  const ordered = servers.toSorted((one, other) => (one[0]?.probedAtMs ?? 0) - (other[0]?.probedAtMs ?? 0));
  await Promise.all(
    ordered.map(async (records) => {
      if (due.has(records))
        await askOne(
          records.filter(({ askable }) => askable),
          batch,
          deps,
        );
      await askElsewhere(records, batch, deps);
    }),
  );
}

/** By the endpoint that answered last. */
async function askElsewhere(records: Endpoints, batch: Batch<EndpointRecord>, { isTaken }: SurveyDeps): Promise<void> {
  const askedAtMs = ({ known }: EndpointRecord): number => known?.overview.askedAtMs ?? 0;
  const [record] = records.filter(({ healthy }) => healthy).toSorted((one, other) => askedAtMs(other) - askedAtMs(one));
  const elsewhere = record?.otherDirectories((directory) => isTaken(record, directory)) ?? [];
  if (record !== undefined && elsewhere.length > 0) await batch.look(record, { parts: [], elsewhere });
  else if (record !== undefined) record.askedElsewhere = [];
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
