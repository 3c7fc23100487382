import { setTimeout as delay } from 'node:timers/promises';

import { until } from '../../test/rig/wait.ts';
import { atMost, type Figure, figure } from '../figure.ts';
import { get, keptConnection, type Place } from '../get.ts';
import type { NodeProcess } from '../node-process.ts';
import { processorMs, residentMb } from '../proc.ts';
import type { Fleet, Stage } from '../stage.ts';
import { CALLER, HOST } from './node.ts';

const STATES = '/opencode-mcp/v1/states';

const SERVERS = 40;
const STREAMING = 10;
/** As fast as models write. */
const WORD_EVERY_MS = 20;

/** V8 has compiled and collected its start-up garbage by then. */
const SETTLING_MS = 45_000;
/** Longer than the interval at which each server is asked again. */
const SAMPLE_MS = 60_000;
const SAMPLES = 2;
const STREAM_MS = 10_000;
/** After a few changes in a row a server is asked once a second. */
const BETWEEN_CHANGES_MS = 1100;

const POLL_MS = 500;

const MOST_IDLE_MS = 5;
const MOST_MB = 90;
const MOST_STREAMING_MS = 150;
export const MOST_CHANGE_MS = 150;

/** A node service that follows the servers of a fleet. */
export interface WatchScene extends AsyncDisposable {
  readonly node: NodeProcess;
  readonly fleet: Fleet;
  readonly states: Place;
}

/** Ready once all of them are followed. */
export async function openWatchScene(stage: Stage, servers: number): Promise<WatchScene> {
  const fleet = await stage.startFleet({ live: servers });
  const registry = await stage.registryOf(fleet.ports);
  const tailscaled = await stage.startTailscaled({ address: HOST, peer: CALLER, strangers: 0 });
  const node = await stage.startNode({ registry, socketPath: tailscaled.place.socketPath, host: HOST });
  const states: Place = { host: HOST, port: node.port, path: STATES };
  // Seldom, since each answer adds to the measured cost.
  const areFollowed = async (): Promise<boolean> =>
    (await get(states)).text.split('"overviews"').length === servers + 1;
  await until('all servers to be followed', areFollowed, undefined, POLL_MS);
  return {
    node,
    fleet,
    states,
    async [Symbol.asyncDispose]() {
      await node.close();
      await tailscaled[Symbol.asyncDispose]();
      await fleet.close();
    },
  };
}

/** The cost of following while idle and while agents write, and the delay until another machine learns of a change. */
export async function watchFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  await using scene = await openWatchScene(stage, SERVERS);
  await delay(SETTLING_MS);
  const idle: number[] = [];
  for (let sample = 0; sample < SAMPLES; sample += 1) idle.push(await processorShare(scene, SAMPLE_MS));
  const { now } = residentMb(scene.node.pid);
  const { share, requests, words } = await streaming(scene, STREAMING, STREAM_MS);
  const changes = await changesSeen(scene, pairs);
  return [
    figure(`node service that follows ${SERVERS} idle servers: processor time in a second`, 'ms', idle, {
      goal: atMost(MOST_IDLE_MS),
    }),
    figure('… resident memory', 'MB', now, { goal: atMost(MOST_MB) }),
    figure(`… while ${STREAMING} of them write: processor time in a second`, 'ms', share, {
      goal: atMost(MOST_STREAMING_MS),
      note: `${words} words`,
    }),
    figure('… requests to them meanwhile', 'count', requests),
    figure('from a change at a server to the answer of a held request for the states', 'ms', changes, {
      goal: atMost(MOST_CHANGE_MS),
    }),
  ];
}

/** Of a second, in ms. */
async function processorShare({ node }: WatchScene, ms: number): Promise<number> {
  const before = processorMs(node.pid);
  await delay(ms);
  return ((processorMs(node.pid) - before) / ms) * 1000;
}

/** Turns write for this long in the first `instances` servers; requests at their beginning and end do not count. */
export async function streaming(
  scene: WatchScene,
  instances: number,
  ms: number,
): Promise<{ readonly share: number; readonly requests: number; readonly words: number }> {
  const { fleet } = scene;
  await fleet.speak(instances, WORD_EVERY_MS);
  await delay(BETWEEN_CHANGES_MS);
  await fleet.count();
  const share = await processorShare(scene, ms);
  const { requests } = await fleet.count();
  const words = await fleet.hush();
  await delay(BETWEEN_CHANGES_MS);
  return { share, requests, words };
}

/** From a change at the last server to the answer of the held request, in ms. */
export async function changesSeen({ fleet, states }: WatchScene, count: number): Promise<readonly number[]> {
  const agent = keptConnection();
  const taken: number[] = [];
  for (let change = 0; change < count; change += 1) {
    const { etag } = await get(states, { agent });
    const headers = { 'if-none-match': etag, prefer: 'wait=20' };
    const answered = get({ ...states, headers }, { agent }).then(() => process.hrtime.bigint());
    // The request must be held first.
    await delay(BETWEEN_CHANGES_MS);
    const { atNs } = await fleet.change();
    taken.push(Number((await answered) - BigInt(atNs)) / 1e6);
  }
  agent.destroy();
  return taken;
}
