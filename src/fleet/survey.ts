import type { Clock } from '../base/clock.ts';
import type { EndpointRecord } from './endpoint-table.ts';
import { OVERVIEW_PARTS } from '../model/instance.ts';
import type { Batch } from '../probing/prober.ts';

export interface SurveyDeps {
  /** Whether the version that the last round found is good enough. */
  readonly trustsVersion: boolean;
  readonly clock: Clock;
  readonly deadlineMs: number;
}

/** Share of the health deadline after which the next way is asked beside one that is silent: a little over a first look. */
const NEXT_WAY = 0.3;

/** Asks each instance, given by its endpoints best first, what it is doing. Those asked longest ago go first. */
export async function askOverviews(
  instances: readonly (readonly EndpointRecord[])[],
  batch: Batch<EndpointRecord>,
  deps: SurveyDeps,
): Promise<void> {
  const ordered = instances.toSorted((one, other) => (one[0]?.probedAtMs ?? 0) - (other[0]?.probedAtMs ?? 0));
  await Promise.all(
    ordered.map((records) =>
      askOne(
        records.filter(({ askable }) => askable),
        batch,
        deps,
      ),
    ),
  );
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
