import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareRound } from '../programs/bare-survey.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

/** Cuts no call short on a busy machine. */
const LONG_DEADLINE = { HEALTH_CHECK_TIMEOUT_MS: '60000' };

/**
 * Compares this build with an older one, in turn: `instances` in a warm process, and as the first call of a fresh one. A third
 * program sends the three requests of each instance directly and all at once, as the server that this one replaced did.
 */
export async function againstFigures(
  stage: Stage,
  oldServer: string,
  sizes: readonly number[],
  pairs: number,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const size of sizes) figures.push(...(await figuresOfSize(stage, oldServer, size, pairs)));
  return figures;
}

async function figuresOfSize(stage: Stage, oldServer: string, size: number, pairs: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: size });
  const registry = await stage.registryOf(fleet.ports);
  const options = { registry, env: LONG_DEADLINE };
  const callMs = async (server: Awaited<ReturnType<Stage['startServer']>>): Promise<number> =>
    (await server.call<Listing>('instances', { limit: MOST_ROWS })).ms;
  const firstCallMs = async (script?: string): Promise<number> => {
    await using server = await stage.startServer({ ...options, ...(script !== undefined && { script }) });
    return await callMs(server);
  };
  const firstCalls = await interleave(Math.ceil(pairs / 3), {
    old: () => firstCallMs(oldServer),
    new: () => firstCallMs(),
  });
  await using older = await stage.startServer({ ...options, script: oldServer });
  await using newer = await stage.startServer(options);
  await using bare = await stage.startBareSurvey({ ports: fleet.ports.live, concurrency: size });
  await Promise.all([callMs(older), callMs(newer)]);
  const warmCalls = await interleave(pairs, {
    old: () => callMs(older),
    new: () => callMs(newer),
    bare: async () => (await bare.ask<BareRound>({})).ms,
  });
  return [
    figure(`first call over ${size}, old`, 'ms', firstCalls.old),
    figure(`first call over ${size}, new`, 'ms', firstCalls.new),
    figure(`first call over ${size}, new / old`, '×', ratios(firstCalls.new, firstCalls.old), { goal: atMost(0.35) }),
    figure(`instances over ${size}, old`, 'ms', warmCalls.old),
    figure(`instances over ${size}, new`, 'ms', warmCalls.new),
    figure(`instances over ${size}, new / old`, '×', ratios(warmCalls.new, warmCalls.old), { goal: atMost(0.5) }),
    figure(
      `instances over ${size}, new / three bare requests each, at once`,
      '×',
      ratios(warmCalls.new, warmCalls.bare),
      {
        goal: atMost(1),
      },
    ),
  ];
}
