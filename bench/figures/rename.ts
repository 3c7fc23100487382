import { setTimeout as delay } from 'node:timers/promises';

import { until } from '../../test/rig/wait.ts';
import { atMost, type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

const GOAL_MS = 300;
/** Instances that are listed already. */
const INSTANCES = 10;
/** Poll interval; one list takes about as long. */
const POLL_MS = 2;
/** Longer than discovery's pause after reading the registry, so that each rename finds it idle. */
const REST_MS = 400;
const GIVE_UP_MS = 10_000;

/** From the rename that adds a registration to the first list that shows the instance healthy. */
export async function renameFigures(stage: Stage, samples: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: INSTANCES });
  const registry = await stage.registryOf(fleet.ports);
  await using server = await stage.startServer({ registry });
  await server.call('instances');
  const [port = 0] = fleet.ports.live;
  const name = 'project-0';
  const has = async (wanted: boolean): Promise<boolean> => {
    const { data } = await server.call<Listing>('list_instances', { limit: MOST_ROWS });
    return data.instances.some((row) => row.name === name && row.state === 'idle') === wanted;
  };
  const listed: number[] = [];
  const unlisted: number[] = [];
  for (let sample = 0; sample < samples; sample++) {
    unlisted.push(
      await timeUntil(
        () => registry.remove(name),
        () => has(false),
      ),
    );
    await delay(REST_MS);
    listed.push(
      await timeUntil(
        () => registry.add({ name, port, cwd: '/home/user/project-0' }),
        () => has(true),
      ),
    );
    await delay(REST_MS);
  }
  return [
    figure('from a registration’s rename to its listing', 'ms', listed, { goal: atMost(GOAL_MS) }),
    figure('from a registration’s removal to its end in the list', 'ms', unlisted),
  ];
}

/** From the end of `change`, by which the file exists or is gone. */
async function timeUntil(change: () => Promise<unknown>, done: () => Promise<boolean>): Promise<number> {
  await change();
  const startMs = performance.now();
  await until('the list to change', done, GIVE_UP_MS, POLL_MS);
  return performance.now() - startMs;
}
