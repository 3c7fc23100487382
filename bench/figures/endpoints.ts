import { setTimeout as delay } from 'node:timers/promises';

import { merge, type KeyPair } from '../../src/identity/merge.ts';
import type { ProbedEndpoint } from '../../src/model/instance.ts';
import { startFaultProxy } from '../../test/rig/network/fault-proxy.ts';
import { until } from '../../test/rig/wait.ts';
import { probed } from '../../test/fleet/candidates.ts';
import { type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import type { Listing } from './listing.ts';

const CANDIDATES = 10_000;
/** Proven endpoints per instance. */
const PER_SERVER = 2;
const NS_PER_MS = 1e6;
/** Between two words of the answer. */
const WORD_MS = 20;
const GIVE_UP_MS = 30_000;
const POLL_MS = 1;

/** The cost of many endpoints: merging 10,000, and switching from one to another in the middle of a turn. */
export async function endpointFigures(stage: Stage, samples: number): Promise<readonly Figure[]> {
  return [
    figure(`merge of ${CANDIDATES} candidates, ${PER_SERVER} ways each`, 'ms', mergeTimes(samples)),
    await failoverFigure(stage, samples),
  ];
}

function mergeTimes(samples: number): number[] {
  const endpoints = Array.from({ length: CANDIDATES }, (_, index) => endpointOf(index));
  const proven = endpoints.flatMap((endpoint, index): KeyPair[] => {
    const other = endpoints[index + 1];
    return index % PER_SERVER === 0 && other !== undefined ? [[urlOf(endpoint), urlOf(other)]] : [];
  });
  return Array.from({ length: samples }, () => {
    const startMs = performance.now();
    const { servers } = merge(endpoints, { proven, former: [] });
    if (servers.length !== CANDIDATES / PER_SERVER) throw new Error(`Expected pairs, got ${servers.length} servers`);
    return performance.now() - startMs;
  });
}

function endpointOf(index: number): ProbedEndpoint {
  const process = Math.floor(index / PER_SERVER);
  return probed({
    key: `k${index}`,
    url: `http://10.${index >> 16}.${(index >> 8) & 255}.${index & 255}:4096`,
    route: index % PER_SERVER === 0 ? 'tailnet' : 'relay',
    claims: { id: `i${process}`, name: `project-${process}`, hostname: `host-${process % 100}`, localPort: 4096 },
  });
}

function urlOf({ candidate }: ProbedEndpoint): string {
  return candidate.endpoint.url;
}

/** From cutting the endpoint in use, in the middle of a streaming turn, to the next text that `send` shows. */
async function failoverFigure(stage: Stage, samples: number): Promise<Figure> {
  await using fleet = await stage.startFleet({ live: 1 });
  const [port = 0] = fleet.ports.live;
  await using better = await startFaultProxy(`http://127.0.0.1:${port}`);
  await using worse = await startFaultProxy(`http://127.0.0.1:${port}`);
  const registry = await stage.registry();
  const common = { cwd: '/home/user/project-0', localPort: port, hostname: 'far', id: 'bench' };
  await registry.add({ name: 'project-0', port: better.port, ...common }, { file: 'better.json' });
  await registry.add({ name: 'project-0', port: worse.port, ...common }, { file: 'worse.json' });
  await using server = await stage.startServer({ registry });
  const count = async (): Promise<number> => (await server.call<Listing>('instances')).data.instances.length;
  await until('one instance', async () => (await count()) === 1);
  const times: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    const arrivals: bigint[] = [];
    const sending = server.call('send', { instance: 'project-0', message: 'Hi' }, (text, atNs) => {
      if (text !== '') arrivals.push(atNs);
    });
    await fleet.prompted();
    await fleet.token('Hello');
    await until('the first text', () => arrivals.length > 0, GIVE_UP_MS, POLL_MS);
    const cutNs = process.hrtime.bigint();
    const before = arrivals.length;
    const [inUse, other] = better.openStreams > 0 ? [better, worse] : [worse, better];
    await inUse.down();
    await until('the other stream', () => other.openStreams > 0, GIVE_UP_MS, POLL_MS);
    while (arrivals.length === before) {
      // Each is a separate part: the one that was streaming when the route broke is shown when it ends.
      await fleet.token('word ');
      await delay(WORD_MS);
    }
    times.push(Number((arrivals[before] ?? cutNs) - cutNs) / NS_PER_MS);
    await fleet.finish('Done.');
    await sending;
    await inUse.up();
  }
  return figure('failover in a turn: from the cut to the next text shown', 'ms', times);
}
