import { setTimeout as delay } from 'node:timers/promises';

import { Lan, type Machine } from '../../test/rig/network/lan.ts';
import { inside, missingForNamespaces } from '../../test/rig/network/namespaces.ts';
import { until } from '../../test/rig/wait.ts';
import { type Figure, figure } from '../figure.ts';
import { processorMs, residentMb } from '../proc.ts';
import type { ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { type Listing, MOST_ROWS } from './listing.ts';

const FIRST_LIVE_PORT = 21_000;
/** 504, of which 500 count. */
const ADDRESSES = 8;
const EACH = 63;
/** Poll interval; one list takes about as long. */
const POLL_MS = 2;
const GIVE_UP_MS = 10_000;
/** Longer than discovery's pause after a scan, so that each packet finds it idle. */
const REST_MS = 400;
/** Discovery rounds and questions as by default. */
const AS_INSTALLED = { TRANSPORT: 'mdns', OPENCODE_MDNS_INTERFACES: 'all', DISCOVERY_INTERVAL_MS: '30000' };

/** On a LAN of network namespaces; empty if they cannot be created. */
export async function lanFigures(stage: Stage, samples: number, seconds: number): Promise<readonly Figure[]> {
  const missing = missingForNamespaces();
  if (missing !== undefined) {
    process.stderr.write(`no figures of the LAN: ${missing}\n`);
    return [];
  }
  await using lan = await Lan.open();
  const [viewer, other] = [await lan.machine('viewer'), await lan.machine('crowd')];
  return [
    figure('from a packet to the listing', 'ms', await packetToListing(stage, viewer, other, samples)),
    ...(await browsing(stage, viewer, other, seconds)),
  ];
}

/** From announcing an instance to the first list that shows it healthy. */
async function packetToListing(stage: Stage, viewer: Machine, other: Machine, samples: number): Promise<number[]> {
  const live = Array.from({ length: samples }, (_, index) => FIRST_LIVE_PORT + index);
  const options = { addresses: [other.on(1)], each: 0, live };
  await using crowd = await stage.startLanCrowd(inside(other.namespace), options);
  await using server = await stage.startServer({ before: inside(viewer.namespace), env: AS_INSTALLED });
  await server.call('instances');
  const measured: number[] = [];
  for (const port of live) {
    await delay(REST_MS);
    const startMs = performance.now();
    await crowd.ask({ order: 'announce', port });
    const url = `http://${other.on(1)}:${port}`;
    await until(`${url} to be listed`, () => isListed(server, url), GIVE_UP_MS, POLL_MS);
    measured.push(performance.now() - startMs);
  }
  return measured;
}

async function isListed(server: ServerProcess, url: string): Promise<boolean> {
  const { data } = await server.call<Listing>('list_instances', { limit: MOST_ROWS });
  return data.instances.some((row) => row.state === 'idle' && row.via.endsWith(url));
}

/** An idle LAN; the interesting case is an hour with services. */
const MOST_ALONE_S = 600;

/** The server's load while 500 services answer its questions and nothing listens on their ports. */
async function browsing(stage: Stage, viewer: Machine, other: Machine, seconds: number): Promise<readonly Figure[]> {
  const addresses = Array.from({ length: ADDRESSES }, (_, index) => `192.168.1.${200 + index}`);
  for (const address of addresses) await other.alias(address);
  await using crowd = await stage.startLanCrowd(inside(other.namespace), { addresses, each: EACH, live: [] });
  const measure = async (
    seconds: number,
  ): Promise<{ readonly share: number; readonly mb: number; readonly highest: number }> => {
    await using server = await stage.startServer({ before: inside(viewer.namespace), env: AS_INSTALLED });
    await server.call('instances');
    const [beforeMs, startMs] = [processorMs(server.pid), performance.now()];
    await delay(seconds * 1000);
    const share = (processorMs(server.pid) - beforeMs) / (performance.now() - startMs);
    const { now, highest } = residentMb(server.pid);
    return { share, mb: now, highest };
  };
  const aloneS = Math.min(seconds, MOST_ALONE_S);
  const alone = await measure(aloneS);
  const { services } = await crowd.ask<{ readonly services: number }>({ order: 'crowd' });
  const among = await measure(seconds);
  const during = `${seconds} s of browsing, ${Math.min(services, 500)} services`;
  return [
    figure(`processor time per second in ${during}`, 'ms', 1000 * among.share),
    figure(`processor time per second in ${aloneS} s of browsing, none`, 'ms', 1000 * alone.share),
    figure(`resident memory after ${during}`, 'MB', among.mb),
    figure(`highest resident memory in ${during}`, 'MB', among.highest),
    figure(`resident memory after ${aloneS} s of browsing, none`, 'MB', alone.mb),
  ];
}
