import { exactly, type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import { MOST_ROWS } from './listing.ts';

export const LIMITS = [1, 4, 16] as const;
const INSTANCES = 48;
/** Long enough to fill every slot while one answer is pending. */
const HEALTH_MS = 20;
/** Cuts off no probe however slow the machine is: ten times all of them in sequence. */
const DEADLINE_MS = '60000';

/** The most instances with a request at the same time, counted on arrival: discovery, surveys and single probes together. */
export async function mostInFlight(stage: Stage, limit: number): Promise<number> {
  await using fleet = await stage.startFleet({ live: INSTANCES, healthMs: HEALTH_MS });
  const registry = await stage.registryOf(fleet.ports);
  const env = { OPENCODE_MCP_HEALTH_CONCURRENCY: String(limit), HEALTH_CHECK_TIMEOUT_MS: DEADLINE_MS };
  await using server = await stage.startServer({ registry, env });
  await server.call('instances', { limit: MOST_ROWS });
  await Promise.all([
    server.call('instances', { limit: MOST_ROWS }),
    server.call('refresh_instances', { limit: MOST_ROWS }),
    server.call('instances', { limit: MOST_ROWS }),
  ]);
  const { instancesAtOnce } = await fleet.count();
  return instancesAtOnce;
}

export async function inFlightFigures(stage: Stage): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const limit of LIMITS) {
    const most = await mostInFlight(stage, limit);
    figures.push(figure(`most probes in flight, limit ${limit}`, 'count', most, { goal: exactly(limit) }));
  }
  return figures;
}
