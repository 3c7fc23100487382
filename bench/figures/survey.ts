import { atMost, exactly, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareRound } from '../programs/bare-survey.ts';
import type { FleetCounts } from '../programs/fleet.ts';
import { processorMs } from '../proc.ts';
import type { Fleet, Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';
import { completeRows, type Listing, MOST_ROWS } from './listing.ts';

export const SURVEY_RATIO = 1.5;
/** health, path, status, permissions, questions, latest session */
export const REQUESTS_PER_INSTANCE = 6;
/** The server's default. */
const CONCURRENCY = 16;

export interface Survey {
  readonly oursMs: readonly number[];
  readonly bareMs: readonly number[];
  /** Processor time of the process for one call, in ms. */
  readonly oursProcessorMs: readonly number[];
  readonly bareProcessorMs: readonly number[];
  /** Requests that arrived for one instance in one call. */
  readonly oursRequests: readonly number[];
  readonly bareRequests: readonly number[];
  /** Of the last call: rows that hold all there is to know. */
  readonly complete: number;
  readonly lastCounts: FleetCounts;
}

/** A call of `instances` and the same requests made bare, in turn, each in a process of its own. */
export async function survey(stage: Stage, instances: number, pairs: number): Promise<Survey> {
  await using fleet = await stage.startFleet({ live: instances });
  await using server = await stage.startServer({ registry: await stage.registryOf(fleet.ports) });
  await using bare = await stage.startBareSurvey({ ports: fleet.ports.live, concurrency: CONCURRENCY });
  const oursRequests: number[] = [];
  const bareRequests: number[] = [];
  const oursProcessorMs: number[] = [];
  const bareProcessorMs: number[] = [];
  let listing: Listing | undefined;
  // The first call waits for discovery's first round.
  await server.call('instances', { limit: MOST_ROWS });
  await fleet.count();
  let lastCounts: FleetCounts | undefined;
  const { ours, theirs } = await interleave(pairs, {
    ours: async () => {
      const before = processorMs(server.pid);
      const { data, ms } = await server.call<Listing>('instances', { limit: MOST_ROWS });
      oursProcessorMs.push(processorMs(server.pid) - before);
      listing = data;
      lastCounts = await countInto(oursRequests, fleet, instances);
      return ms;
    },
    theirs: async () => {
      const before = processorMs(bare.pid);
      const { ms } = await bare.ask<BareRound>({});
      bareProcessorMs.push(processorMs(bare.pid) - before);
      await countInto(bareRequests, fleet, instances);
      return ms;
    },
  });
  if (listing === undefined || lastCounts === undefined) throw new Error('Expected a listing, got none');
  return {
    oursMs: ours,
    bareMs: theirs,
    oursProcessorMs,
    bareProcessorMs,
    oursRequests,
    bareRequests,
    complete: completeRows(listing),
    lastCounts,
  };
}

export async function surveyFigures(stage: Stage, sizes: readonly number[], pairs: number): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const size of sizes) {
    const { oursMs, bareMs, oursProcessorMs, bareProcessorMs, oursRequests, bareRequests, complete } = await survey(
      stage,
      size,
      pairs,
    );
    const over = `over ${size} instance${size === 1 ? '' : 's'}`;
    figures.push(
      figure(`the requests of instances made bare, ${over}`, 'ms', bareMs),
      figure(`instances ${over}`, 'ms', oursMs),
      figure(`instances ${over}, ours / bare`, '×', ratios(oursMs, bareMs), { goal: atMost(SURVEY_RATIO) }),
      figure(`processor time of instances ${over}, ours / bare`, '×', ratios(oursProcessorMs, bareProcessorMs)),
      figure(`requests per instance and call ${over}, bare`, 'count', bareRequests),
      figure(`requests per instance and call ${over}, ours`, 'count', oursRequests, {
        goal: atMost(REQUESTS_PER_INSTANCE),
      }),
      figure(`complete rows ${over}`, 'count', complete, { goal: exactly(size) }),
    );
  }
  return figures;
}

async function countInto(samples: number[], fleet: Fleet, instances: number): Promise<FleetCounts> {
  const counts = await fleet.count();
  samples.push(counts.requests / instances);
  return counts;
}
