import { type FakeNodeServer, FakeNodeService, idleIn } from '../../test/rig/fake/fake-node-service.ts';
import { startFakeLocalApi } from '../../test/rig/fake/fake-local-api.ts';
import { listenHttp } from '../../test/rig/http-listener.ts';
import { until } from '../../test/rig/wait.ts';
import { atMost, exactly, type Figure, figure } from '../figure.ts';
import type { Stage } from '../stage.ts';
import { completeRows, type Listing, MOST_ROWS } from './listing.ts';

export const MACHINES = 5;
export const EACH = 40;
/** Share of the same call's cost without states from node services. */
export const REPORTED_RATIO = 0.15;

export interface ReportedSurvey {
  /** Requests to the machines in one call, held ones included. */
  readonly requests: number;
  /** The same with machines that serve only the list. */
  readonly requestsAsked: number;
  readonly complete: number;
  readonly ms: number;
  readonly msAsked: number;
  /** From a change at a machine to a list that shows it. */
  readonly changeMs: readonly number[];
}

interface Round {
  readonly requests: number;
  readonly complete: number;
  readonly ms: number;
  readonly changeMs: readonly number[];
}

/** A call of `instances` over node services with states, and over ones without. */
export async function reportedSurvey(stage: Stage, changes = 0): Promise<ReportedSurvey> {
  const reported = await round(stage, true, changes);
  const asked = await round(stage, false, 0);
  return { ...reported, requestsAsked: asked.requests, msAsked: asked.ms };
}

async function round(stage: Stage, hasStates: boolean, changes: number): Promise<Round> {
  await using fleet = await stage.startFleet({ live: MACHINES * EACH });
  const { live } = fleet.ports;
  const said = Array.from({ length: MACHINES }, (_, machine) =>
    live.slice(machine * EACH, (machine + 1) * EACH).map((port, index): FakeNodeServer => {
      const directory = `/home/user/project-${machine * EACH + index}`;
      return { id: `m${machine}-${index}`, directory, url: `http://127.0.0.1:${port}`, overviews: [idleIn(directory)] };
    }),
  );
  const nodes = said.map((servers) => new FakeNodeService(servers));
  const listeners = await Promise.all(nodes.map((node) => listenHttp(node.serve)));
  const address = (machine: number): string => `100.64.0.${machine + 2}`;
  const tailscaled = await startFakeLocalApi({
    status: { TUN: false },
    peers: nodes.map((_, machine) => ({ HostName: `machine-${machine}` })),
    dial: (host) => listeners[nodes.findIndex((_, machine) => address(machine) === host)]?.port,
  });
  for (const node of nodes) node.hasStates = hasStates;
  const isHeld = (): Promise<true> => until('all to be held', () => nodes.every(({ held }) => held.size === 1));
  try {
    await using server = await stage.startServer({
      env: { TRANSPORT: 'tailscale', TAILSCALE_SOCKET: tailscaled.socketPath, HEALTH_CHECK_TIMEOUT_MS: '60000' },
    });
    await server.call('instances', { limit: MOST_ROWS });
    await isHeld();
    for (const node of nodes) node.requests.length = 0;
    const { data, ms } = await server.call<Listing>('instances', { limit: MOST_ROWS });
    const held = nodes.reduce((sum, node) => sum + node.held.size, 0);
    const requests = nodes.reduce((sum, node) => sum + node.requests.length, held);
    const changeMs: number[] = [];
    for (let change = 0; change < changes; change += 1) {
      const [node] = nodes;
      const [first, ...rest] = said[0] ?? [];
      if (node === undefined || first === undefined) break;
      await isHeld();
      const title = `change ${change}`;
      const beganMs = performance.now();
      node.say([{ ...first, overviews: [idleIn(first.directory, { title })] }, ...rest]);
      let text = '';
      while (!text.includes(title)) ({ text } = await server.call('list_instances', { limit: 1 }));
      changeMs.push(performance.now() - beganMs);
    }
    return { requests, complete: completeRows(data), ms, changeMs };
  } finally {
    await tailscaled.close();
    await Promise.all(listeners.map((listener) => listener.close()));
  }
}

export async function reportedFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  const { requests, requestsAsked, complete, ms, msAsked, changeMs } = await reportedSurvey(stage, pairs);
  const over = `over ${MACHINES} machines of ${EACH} instances`;
  return [
    figure(`requests of a call of instances ${over}`, 'count', requests, { goal: atMost(MACHINES) }),
    figure(`the same where each instance is asked`, 'count', requestsAsked),
    figure(`requests ${over}, reported / asked`, '×', requests / requestsAsked, { goal: atMost(REPORTED_RATIO) }),
    figure(`complete rows ${over}`, 'count', complete, { goal: exactly(MACHINES * EACH) }),
    figure(`instances ${over}`, 'ms', ms),
    figure(`the same where each instance is asked`, 'ms', msAsked),
    figure('a change at a machine until it is listed', 'ms', changeMs, { goal: atMost(150) }),
  ];
}
