import { setTimeout as delay } from 'node:timers/promises';

import { until } from '../../test/rig/wait.ts';
import { atMost, type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

const GOAL_MS = 300;
/** Instances that are registered at the start. */
const INSTANCES = 10;
/** Poll interval; one list takes about as long. */
const POLL_MS = 2;
/** Longer than discovery's pause after reading the registry, so that each rename finds it idle. */
const REST_MS = 400;
const GIVE_UP_MS = 10_000;

/** Measures the time from the rename that adds a registration to the first list that shows the instance, and from its removal to the first without it. */
export async function renameFigures(stage: Stage, samples: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: INSTANCES });
  const registry = await stage.registryOf(fleet.ports);
  await using server = await stage.startServer({ registry });
  await server.call('instances');
  const [port = 0] = fleet.ports.live;
  const name = 'project-0';
  const isListed = async (expected: boolean): Promise<boolean> => {
    const { data } = await server.call<Listing>('list_instances', { limit: MOST_ROWS });
    return data.instances.some((row) => row.name === name && row.state === 'idle') === expected;
  };
  const listingTimes: number[] = [];
  const removalTimes: number[] = [];
  for (let sample = 0; sample < samples; sample++) {
    removalTimes.push(
      await timeUntil(
        () => registry.remove(name),
        () => isListed(false),
      ),
    );
    await delay(REST_MS);
    listingTimes.push(
      await timeUntil(
        () => registry.add({ name, port, cwd: '/home/user/project-0' }),
        () => isListed(true),
      ),
    );
    await delay(REST_MS);
  }
  return [
    figure('from a registration’s rename to its listing', 'ms', listingTimes, { goal: atMost(GOAL_MS) }),
    figure('from a registration’s removal to its disappearance from the list', 'ms', removalTimes),
  ];
}

/** Milliseconds from the end of `change` until `done` returns true. */
async function timeUntil(change: () => Promise<unknown>, done: () => Promise<boolean>): Promise<number> {
  await change();
  const startMs = performance.now();
  await until('the list to change', done, GIVE_UP_MS, POLL_MS);
  return performance.now() - startMs;
}
