import { atMost, exactly, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareRound } from '../programs/bare-survey.ts';
import { FLEET_PASSWORD } from '../programs/fleet-password.ts';
import { processorMs, residentMb } from '../proc.ts';
import type { Fleet, Stage } from '../stage.ts';
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

export interface Survey {
  readonly oursMs: readonly number[];
  readonly bareMs: readonly number[];
  /** Processor time of the process for one call, in ms. */
  readonly oursProcessorMs: readonly number[];
  readonly bareProcessorMs: readonly number[];
  /** Requests that arrived for one instance in one call. */
  readonly oursRequests: readonly number[];
  readonly bareRequests: readonly number[];
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
  const ours = new Rounds(fleet, instances);
  const theirs = new Rounds(fleet, instances);
  let complete = 0;
  // The first call waits for the first discovery round.
  await server.call('instances', { limit: MOST_ROWS });
  await fleet.count();
  await interleave(pairs, {
    ours: (keep) =>
      ours.take(keep, server.pid, async () => {
        const { data, ms } = await server.call<Listing>('instances', { limit: MOST_ROWS });
        complete = completeRows(data);
        return ms;
      }),
    theirs: (keep) => theirs.take(keep, bare.pid, async () => (await bare.ask<BareRound>({})).ms),
  });
  return {
    oursMs: ours.ms,
    bareMs: theirs.ms,
    oursProcessorMs: ours.processorMs,
    bareProcessorMs: theirs.processorMs,
    oursRequests: ours.requests,
    bareRequests: theirs.requests,
    complete,
    residentMb: residentMb(server.pid).now,
  };
}

/** Samples of one side. */
class Rounds {
  readonly ms: number[] = [];
  readonly processorMs: number[] = [];
  /** Requests that arrived per instance. */
  readonly requests: number[] = [];
  readonly #fleet: Fleet;
  readonly #instances: number;

  constructor(fleet: Fleet, instances: number) {
    this.#fleet = fleet;
    this.#instances = instances;
  }

  async take(keep: boolean, pid: number, round: () => Promise<number>): Promise<void> {
    const before = processorMs(pid);
    const ms = await round();
    const used = processorMs(pid) - before;
    const { requests } = await this.#fleet.count();
    if (!keep) return;
    this.ms.push(ms);
    this.processorMs.push(used);
    this.requests.push(requests / this.#instances);
  }
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
