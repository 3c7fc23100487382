import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareRound } from '../programs/bare-survey.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

/** No discovery rounds of their own, and no deadline that cuts a call short on a busy machine. */
const LONG_DEADLINE = { HEALTH_CHECK_TIMEOUT_MS: '60000' };

/**
 * This build against an older one, in turn: `instances` in a warm process, and in a fresh one right after tools/list. The third
 * side makes the three requests of each instance bare and all at once, as the server that this one replaces did.
 */
export async function againstFigures(
  stage: Stage,
  oldServer: string,
  sizes: readonly number[],
  pairs: number,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const size of sizes) figures.push(...(await against(stage, oldServer, size, pairs)));
  return figures;
}

async function against(stage: Stage, oldServer: string, size: number, pairs: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: size });
  const registry = await stage.registryOf(fleet.ports);
  const options = { registry, env: LONG_DEADLINE };
  const call = async (server: Awaited<ReturnType<Stage['startServer']>>): Promise<number> =>
    (await server.call<Listing>('instances', { limit: MOST_ROWS })).ms;
  const first = async (script?: string): Promise<number> => {
    await using server = await stage.startServer({ ...options, ...(script !== undefined && { script }) });
    return await call(server);
  };
  const starts = await interleave(Math.ceil(pairs / 3), { old: () => first(oldServer), new: () => first() });
  await using older = await stage.startServer({ ...options, script: oldServer });
  await using newer = await stage.startServer(options);
  await using bare = await stage.startBareSurvey({ ports: fleet.ports.live, concurrency: size });
  await Promise.all([call(older), call(newer)]);
  const later = await interleave(pairs, {
    old: () => call(older),
    new: () => call(newer),
    bare: async () => (await bare.ask<BareRound>({})).ms,
  });
  return [
    figure(`first call over ${size}, old`, 'ms', starts.old),
    figure(`first call over ${size}, new`, 'ms', starts.new),
    figure(`first call over ${size}, new / old`, '×', ratios(starts.new, starts.old), { goal: atMost(0.35) }),
    figure(`instances over ${size}, old`, 'ms', later.old),
    figure(`instances over ${size}, new`, 'ms', later.new),
    figure(`instances over ${size}, new / old`, '×', ratios(later.new, later.old), { goal: atMost(0.5) }),
    figure(`instances over ${size}, new / three bare requests each, at once`, '×', ratios(later.new, later.bare), {
      goal: atMost(1),
    }),
  ];
}
