import { atMost, exactly, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareRound } from '../programs/bare-survey.ts';
import { FLEET_PASSWORD } from '../programs/fake-service.ts';
import { processorMs, residentMb } from '../proc.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';
import { completeRows, type Listing, MOST_ROWS } from './listing.ts';

export const SURVEY_RATIO = 1.5;
/** Requests of an idle OpenCode 1: path, status, latest session. */
export const REQUESTS_PER_INSTANCE = 3;
/** Requests of an OpenCode 2, for all its directories: sessions, and active ones. */
export const REQUESTS_PER_SERVICE = 2;
/** The server's default. */
const CONCURRENCY = 16;
/** A busy machine must not cut off a survey: both sides must make every request. */
const LONG_DEADLINE = { HEALTH_CHECK_TIMEOUT_MS: '60000' };

interface Round {
  readonly ms: number;
  /** Processor time of the process for the call. */
  readonly processorMs: number;
  /** Requests that arrived per instance. */
  readonly requests: number;
}

export interface Survey {
  readonly ours: readonly Round[];
  readonly theirs: readonly Round[];
  /** Complete rows of the last call. */
  readonly complete: number;
  /** Resident memory of the server after the last call. */
  readonly residentMb: number;
}

/** A call of `instances` and the same requests made bare, in turn, each in its own process. */
export async function survey(stage: Stage, instances: number, pairs: number, generation: 1 | 2 = 1): Promise<Survey> {
  await using fleet = await stage.startFleet({ live: instances, generation });
  const registry = await stage.registryOf(fleet.ports, generation === 2 ? FLEET_PASSWORD : undefined);
  await using server = await stage.startServer({ registry, env: LONG_DEADLINE });
  await using bare = await stage.startBareSurvey({ ports: fleet.ports.live, concurrency: CONCURRENCY, generation });
  let complete = 0;
  const round = async (pid: number, measure: () => Promise<number>): Promise<Round> => {
    const before = processorMs(pid);
    const ms = await measure();
    const used = processorMs(pid) - before;
    const { requests } = await fleet.count();
    return { ms, processorMs: used, requests: requests / instances };
  };
  // The first call waits for the first discovery round.
  await server.call('instances', { limit: MOST_ROWS });
  await fleet.count();
  const { ours, theirs } = await interleave(pairs, {
    ours: () =>
      round(server.pid, async () => {
        const { data, ms } = await server.call<Listing>('instances', { limit: MOST_ROWS });
        complete = completeRows(data);
        return ms;
      }),
    theirs: () => round(bare.pid, async () => (await bare.ask<BareRound>({})).ms),
  });
  return { ours, theirs, complete, residentMb: residentMb(server.pid).now };
}

export async function surveyFigures(stage: Stage, sizes: readonly number[], pairs: number): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const size of sizes) {
    const { ours, theirs, complete } = await survey(stage, size, pairs);
    const of = (rounds: readonly Round[], what: keyof Round): number[] => rounds.map((round) => round[what]);
    const compared = (what: keyof Round): number[] => ratios(of(ours, what), of(theirs, what));
    const over = `over ${size} instance${size === 1 ? '' : 's'}`;
    figures.push(
      figure(`the requests of instances made bare, ${over}`, 'ms', of(theirs, 'ms')),
      figure(`instances ${over}`, 'ms', of(ours, 'ms')),
      figure(`instances ${over}, ours / bare`, '×', compared('ms'), { goal: atMost(SURVEY_RATIO) }),
      figure(`processor time of instances ${over}, ours / bare`, '×', compared('processorMs')),
      figure(`requests per instance and call ${over}, bare`, 'count', of(theirs, 'requests')),
      figure(`requests per instance and call ${over}, ours`, 'count', of(ours, 'requests'), {
        goal: atMost(REQUESTS_PER_INSTANCE),
      }),
      figure(`complete rows ${over}`, 'count', complete, { goal: exactly(size) }),
    );
  }
  return figures;
}
