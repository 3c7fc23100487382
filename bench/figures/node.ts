import { until } from '../../test/rig/wait.ts';
import { atMost, exactly, type Figure, figure } from '../figure.ts';
import { get, keptConnection, type Place } from '../get.ts';
import { interleave } from '../interleave.ts';
import type { NodeProcess } from '../node-process.ts';
import { countsOf, type Stage, type Tailscaled } from '../stage.ts';
import { differences, ratios } from '../statistics.ts';

/** This machine and its caller in the bench's tailnet. */
export const HOST = '127.0.0.2';
export const CALLER = '127.0.0.1';
const LIST = '/opencode-mcp/v1/instances';
const STREAM_BYTES = 64 * 1024 * 1024;
export const REQUESTS = 100;
/** Two connections instead of one, and whois. */
export const FIRST_BYTE_RATIO = 5;

/** One instance, and the node service that passes requests on to it. */
export interface NodeScene extends AsyncDisposable {
  readonly node: NodeProcess;
  readonly tailscaled: Tailscaled;
  readonly direct: (path: string) => Place;
  readonly proxied: (path: string) => Place;
  readonly list: Place;
}

export async function openNodeScene(stage: Stage): Promise<NodeScene> {
  const streamer = await stage.startStreamer();
  const tailscaled = await stage.startTailscaled({ address: HOST, peer: CALLER, strangers: 0 });
  const registry = await stage.registry();
  const { port, directory } = streamer.place;
  await registry.add({ name: 'streamer', port, cwd: directory, id: 'streamer' });
  const node = await stage.startNode({ registry, socketPath: tailscaled.place.socketPath, host: HOST });
  const at = (path: string): Place => ({ host: HOST, port: node.port, path });
  const list = at(LIST);
  await until('the instance to be listed', async () => (await get(list)).text.includes('"streamer"'));
  return {
    node,
    tailscaled,
    list,
    direct: (path) => ({ host: CALLER, port, path }),
    proxied: (path) => at(`/opencode-mcp/v1/i/streamer${path}`),
    async [Symbol.asyncDispose]() {
      await node.close();
      await tailscaled[Symbol.asyncDispose]();
      await streamer[Symbol.asyncDispose]();
    },
  };
}

/** What the node service adds to an event stream, and whois's share of it. */
export async function nodeFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  await using scene = await openNodeScene(stage);
  return [
    ...(await firstByte(scene, pairs)),
    ...(await throughput(scene, Math.ceil(pairs / 3))),
    ...(await whois(scene, pairs)),
  ];
}

async function firstByte(scene: NodeScene, pairs: number): Promise<readonly Figure[]> {
  const { ours, theirs } = await firstBytes(scene, pairs);
  return [
    figure('event stream: connecting to first byte, direct', 'ms', theirs),
    figure('event stream: connecting to first byte, by the node service', 'ms', ours),
    figure('event stream: first byte, node service − direct', 'ms', differences(ours, theirs)),
    figure('event stream: first byte, node service / direct', '×', ratios(ours, theirs), {
      goal: atMost(FIRST_BYTE_RATIO),
    }),
  ];
}

/** From connecting to the first byte of an event stream, in ms, with and without the node service. */
export function firstBytes(
  { direct, proxied }: NodeScene,
  pairs: number,
): Promise<Record<'ours' | 'theirs', readonly number[]>> {
  const measure = async (place: Place): Promise<number> => (await get(place, { only: 'first' })).firstMs;
  return interleave(pairs, { theirs: () => measure(direct('/event')), ours: () => measure(proxied('/event')) });
}

async function throughput({ direct, proxied }: NodeScene, pairs: number): Promise<readonly Figure[]> {
  const path = `/event?bytes=${STREAM_BYTES}`;
  const measure = async (place: Place): Promise<number> => (await get(place)).restMs;
  const measures = { theirs: () => measure(direct(path)), ours: () => measure(proxied(path)) };
  const { ours, theirs } = await interleave(pairs, measures);
  const what = `event stream: ${STREAM_BYTES / 1024 / 1024} MiB`;
  return [
    figure(`${what}, direct`, 'ms', theirs),
    figure(`${what}, by the node service`, 'ms', ours),
    figure(`${what}, node service / direct`, '×', ratios(ours, theirs)),
  ];
}

/** A request for the list is not passed on: on a new connection it takes longer by connecting and whois. */
async function whois({ list, tailscaled }: NodeScene, pairs: number): Promise<readonly Figure[]> {
  const { both } = await interleave(pairs, {
    both: async () => {
      const agent = keptConnection();
      const first = await get(list, { agent });
      const later = await get(list, { agent });
      agent.destroy();
      return [first.firstMs, later.firstMs] as const;
    },
  });
  const [first, later] = [both.map(([ms]) => ms), both.map(([, ms]) => ms)];
  const asked = await whoisAsked(list, tailscaled);
  return [
    figure('list: first request of a connection, with whois', 'ms', first),
    figure('list: second request of a connection, whois known', 'ms', later),
    figure('list: first − second', 'ms', differences(first, later)),
    figure(`whois requests for ${REQUESTS} requests of one connection`, 'count', asked, { goal: exactly(1) }),
  ];
}

/** Whois requests for consecutive requests on one connection. */
export async function whoisAsked(list: Place, tailscaled: Tailscaled): Promise<number> {
  const agent = keptConnection();
  await countsOf(tailscaled);
  for (let request = 0; request < REQUESTS; request += 1) await get(list, { agent });
  agent.destroy();
  return (await countsOf(tailscaled)).whois;
}
