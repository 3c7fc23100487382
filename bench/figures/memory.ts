import { atMost, type Figure, figure } from '../figure.ts';
import { residentMb } from '../proc.ts';
import type { Stage } from '../stage.ts';
import { countTools } from './start.ts';

const INSTANCES = 200;
const SURVEYS = 3;
export const MOST_SURVEYED_MB = 90;
/** A busy machine must not cut off a survey. */
const LONG_DEADLINE = { HEALTH_CHECK_TIMEOUT_MS: '60000' };

/** Resident memory of the server after several surveys of many instances. */
export async function memoryFigures(stage: Stage, runs: number): Promise<readonly Figure[]> {
  const { bare, listed, surveyed, highest } = await measureMemory(stage, runs);
  const after = `after ${SURVEYS} surveys of ${INSTANCES} instances`;
  return [
    figure('resident memory at tools/list, bare SDK server', 'MB', bare),
    figure('resident memory at tools/list, ours', 'MB', listed),
    figure(`resident memory ${after}`, 'MB', surveyed, { goal: atMost(MOST_SURVEYED_MB) }),
    figure(`highest resident memory ${after}`, 'MB', highest),
  ];
}

/** In MB, one of each per run. */
export async function measureMemory(
  stage: Stage,
  runs: number,
): Promise<Record<'bare' | 'listed' | 'surveyed' | 'highest', number[]>> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: INSTANCES });
  const registry = await stage.registryOf(fleet.ports);
  const samples = { bare: [] as number[], listed: [] as number[], surveyed: [] as number[], highest: [] as number[] };
  for (let run = 0; run < runs; run++) {
    {
      await using server = stage.spawnBareServer(tools);
      await server.initialize();
      await server.listTools();
      samples.bare.push(residentMb(server.pid).now);
    }
    await using server = await stage.startServer({ registry, env: LONG_DEADLINE });
    samples.listed.push(residentMb(server.pid).now);
    for (let survey = 0; survey < SURVEYS; survey++) await server.call('instances');
    const memory = residentMb(server.pid);
    samples.surveyed.push(memory.now);
    samples.highest.push(memory.highest);
  }
  return samples;
}
