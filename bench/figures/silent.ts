import { atMost, exactly, type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import { completeRows, type Listing, MOST_ROWS } from './listing.ts';

/** The server's default health deadline. */
const DEADLINE_MS = 3_000;
/** What a timer, 200 rows and two pipes may add to the deadline. */
const TRANSPORT_MS = 100;
const RUNS = { servers: 5, callsEach: 7 };

export interface SilentCalls {
  readonly ms: readonly number[];
  /** Complete rows of each call. */
  readonly complete: readonly number[];
}

export interface SilentSurvey {
  /** A process's first call, which also waits for the first discovery round. */
  readonly first: SilentCalls;
  readonly later: SilentCalls;
}

/** `instances` with some endpoints that accept and never answer. */
export async function silentSurvey(
  stage: Stage,
  endpoints: { readonly live: number; readonly silent: number; readonly deadlineMs: number },
  runs: { readonly servers: number; readonly callsEach: number },
): Promise<SilentSurvey> {
  await using fleet = await stage.startFleet(endpoints);
  const registry = await stage.registryOf(fleet.ports);
  const env = { HEALTH_CHECK_TIMEOUT_MS: String(endpoints.deadlineMs) };
  const first = { ms: [] as number[], complete: [] as number[] };
  const later = { ms: [] as number[], complete: [] as number[] };
  for (let run = 0; run < runs.servers; run++) {
    await using server = await stage.startServer({ registry, env });
    for (let call = 0; call < runs.callsEach; call++) {
      const { ms, data } = await server.call<Listing>('instances', { limit: MOST_ROWS });
      const calls = call === 0 ? first : later;
      calls.ms.push(ms);
      calls.complete.push(completeRows(data));
    }
  }
  return { first, later };
}

export async function silentFigures(stage: Stage): Promise<readonly Figure[]> {
  const live = 180;
  const silent = 20;
  const { first, later } = await silentSurvey(stage, { live, silent, deadlineMs: DEADLINE_MS }, RUNS);
  const among = `${silent} silent among ${live + silent}`;
  const fewest = (counts: readonly number[]): number => Math.min(...counts);
  return [
    figure(`instances with ${among}, first call`, 'ms', first.ms, {
      goal: atMost(2 * DEADLINE_MS + TRANSPORT_MS),
      note: 'waits for the first round too',
    }),
    figure(`instances with ${among}, later calls`, 'ms', later.ms, {
      goal: atMost(DEADLINE_MS + TRANSPORT_MS),
    }),
    figure(`fewest complete rows with ${among}, first call`, 'count', fewest(first.complete), { goal: exactly(live) }),
    figure(`fewest complete rows with ${among}, later calls`, 'count', fewest(later.complete), { goal: exactly(live) }),
  ];
}
