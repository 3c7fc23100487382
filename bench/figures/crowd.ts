import { readFile } from 'node:fs/promises';

import { badPortReason } from '../../src/base/urls.ts';
import { until } from '../../test/rig/wait.ts';
import { exactly, type Figure, figure } from '../figure.ts';
import { residentMb } from '../proc.ts';
import type { ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

const ALIVE = 1_000;
const DEAD = 9_000;
/** Below the ephemeral ports, and mostly below those of other suites. */
const LOWEST_PORT = 1_024;
/** A list of this size costs the server a good part of a second, so poll seldom. */
const POLL_MS = 2_000;
const GIVE_UP_MS = 180_000;

/** The most registrations that are read; nine of ten are left over from ended instances. */
export async function crowdFigures(stage: Stage, runs: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: ALIVE });
  const registry = await stage.registryOf({ live: fleet.ports.live, silent: await closedPorts(DEAD) });
  const first: number[] = [];
  const asked: number[] = [];
  const complete: number[] = [];
  const alive: number[] = [];
  const now: number[] = [];
  const highest: number[] = [];
  const probes: number[] = [];
  for (let run = 0; run < runs; run++) {
    await fleet.count();
    await using server = await stage.startServer({ registry });
    const startMs = performance.now();
    const answering = server.call<Listing>('instances', { limit: 1 });
    await fleet.surveyed(GIVE_UP_MS);
    asked.push(performance.now() - startMs);
    first.push((await answering).ms);
    alive.push(await countAlive(server));
    const { byRoute } = await fleet.count();
    probes.push((byRoute['GET /global/health'] ?? 0) / ALIVE);
    await untilAllKnown(server);
    complete.push(performance.now() - startMs);
    const memory = residentMb(server.pid);
    now.push(memory.now);
    highest.push(memory.highest);
  }
  const among = `${ALIVE + DEAD} registrations, ${ALIVE} alive`;
  return [
    figure(`${among}: first answer of instances`, 'ms', first),
    figure(`${among}: until every live one was asked`, 'ms', asked),
    figure(`${among}: until every dead one was found dead`, 'ms', complete),
    figure(`${among}: alive in the list`, 'count', alive, { goal: exactly(ALIVE) }),
    figure(`${among}: probes per live instance until then`, 'count', probes),
    figure(`${among}: resident memory`, 'MB', now),
    figure(`${among}: highest resident memory`, 'MB', highest),
  ];
}

/** Nothing listens there. */
async function closedPorts(count: number): Promise<readonly number[]> {
  const taken = new Set(
    [...(await readFile('/proc/net/tcp', 'utf8')).matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4})/gm)].map(([, port = '']) =>
      Number.parseInt(port, 16),
    ),
  );
  const ports: number[] = [];
  for (let port = LOWEST_PORT; ports.length < count; port++) {
    if (!taken.has(port) && badPortReason(port) === undefined) ports.push(port);
  }
  return ports;
}

/** Instances that wait for their first probe are in a note only; those that answered badly are listed as offline. */
async function untilAllKnown(server: ServerProcess): Promise<void> {
  let last: Listing | undefined;
  const what = (): string => `${ALIVE + DEAD} rows, got ${last?.total}; ${last?.notes.join('; ')}`;
  const isAll = async (): Promise<boolean> => {
    last = (await server.call<Listing>('list_instances', { limit: 1 })).data;
    return last.total === ALIVE + DEAD;
  };
  await until(what, isAll, GIVE_UP_MS, POLL_MS);
}

async function countAlive(server: ServerProcess): Promise<number> {
  let alive = 0;
  for (let offset = 0; offset < ALIVE + DEAD; offset += MOST_ROWS) {
    const { data } = await server.call<Listing>('list_instances', { limit: MOST_ROWS, offset });
    alive += data.instances.filter(({ state }) => state === 'idle').length;
  }
  return alive;
}
