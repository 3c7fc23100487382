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

/** As many registrations as are read at most; nine of ten belong to ended instances. */
export async function crowdFigures(stage: Stage, runs: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: ALIVE });
  const registry = await stage.registryOf({ live: fleet.ports.live, silent: await closedPorts(DEAD) });
  const firstAnswerMs: number[] = [];
  const allLiveProbedMs: number[] = [];
  const allKnownMs: number[] = [];
  const aliveRows: number[] = [];
  const residentNow: number[] = [];
  const residentHighest: number[] = [];
  const probes: number[] = [];
  for (let run = 0; run < runs; run++) {
    await fleet.count();
    await using server = await stage.startServer({ registry });
    const startMs = performance.now();
    const firstAnswer = server.call<Listing>('instances', { limit: 1 });
    await fleet.surveyed(GIVE_UP_MS);
    allLiveProbedMs.push(performance.now() - startMs);
    firstAnswerMs.push((await firstAnswer).ms);
    aliveRows.push(await countAlive(server));
    const { byRoute } = await fleet.count();
    probes.push((byRoute['GET /global/health'] ?? 0) / ALIVE);
    await untilAllKnown(server);
    allKnownMs.push(performance.now() - startMs);
    const memory = residentMb(server.pid);
    residentNow.push(memory.now);
    residentHighest.push(memory.highest);
  }
  const among = `${ALIVE + DEAD} registrations, ${ALIVE} alive`;
  return [
    figure(`${among}: first answer of instances`, 'ms', firstAnswerMs),
    figure(`${among}: until every live one was asked`, 'ms', allLiveProbedMs),
    figure(`${among}: until every dead one was found dead`, 'ms', allKnownMs),
    figure(`${among}: alive in the list`, 'count', aliveRows, { goal: exactly(ALIVE) }),
    figure(`${among}: probes per live instance until then`, 'count', probes),
    figure(`${among}: resident memory`, 'MB', residentNow),
    figure(`${among}: highest resident memory`, 'MB', residentHighest),
  ];
}

/** Ports on which nothing listens. */
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

/** An instance becomes a row with its first probe; until then only a note counts it. A dead one is a row, as offline. */
async function untilAllKnown(server: ServerProcess): Promise<void> {
  let last: Listing | undefined;
  const expectation = (): string => `${ALIVE + DEAD} rows, got ${last?.total}; ${last?.notes.join('; ')}`;
  const hasAllRows = async (): Promise<boolean> => {
    last = (await server.call<Listing>('list_instances', { limit: 1 })).data;
    return last.total === ALIVE + DEAD;
  };
  await until(expectation, hasAllRows, GIVE_UP_MS, POLL_MS);
}

async function countAlive(server: ServerProcess): Promise<number> {
  let alive = 0;
  for (let offset = 0; offset < ALIVE + DEAD; offset += MOST_ROWS) {
    const { data } = await server.call<Listing>('list_instances', { limit: MOST_ROWS, offset });
    alive += data.instances.filter(({ state }) => state === 'idle').length;
  }
  return alive;
}
