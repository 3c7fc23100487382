import { type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import { residentMb } from '../proc.ts';
import { NO_ROUNDS } from '../server-process.ts';
import { countsOf, type Stage, type Tailscaled } from '../stage.ts';
import { ratios } from '../statistics.ts';
import type { Listing } from './listing.ts';
import { CALLER, HOST, openNodeScene } from './node.ts';

const MANY = 5_000;

/** From a server's start to its first list with another machine's instance, in a small and a large tailnet. */
export async function tailnetFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  await using scene = await openNodeScene(stage);
  // The viewer's; the node service listens on the other one.
  const seen = { address: CALLER, peer: HOST };
  await using small = await stage.startTailscaled({ ...seen, strangers: 0 });
  await using large = await stage.startTailscaled({ ...seen, strangers: MANY - 1 });
  const { few, many } = await interleave(pairs, {
    few: () => firstList(stage, small, scene.node.port),
    many: () => firstList(stage, large, scene.node.port),
  });
  const ms = (samples: readonly Sample[]): number[] => samples.map(({ listedMs }) => listedMs);
  return [
    figure('start to a list of another machine, 1 peer', 'ms', ms(few)),
    figure(`start to a list of another machine, ${MANY} peers`, 'ms', ms(many)),
    figure(`start to a list of another machine, ${MANY} peers / 1`, '×', ratios(ms(many), ms(few))),
    figure(
      `status asked for until then, ${MANY} peers`,
      'count',
      many.map(({ statuses }) => statuses),
    ),
    figure(
      `resident memory then, ${MANY} peers`,
      'MB',
      many.map(({ memoryMb }) => memoryMb),
    ),
  ];
}

interface Sample {
  readonly listedMs: number;
  readonly statuses: number;
  readonly memoryMb: number;
}

async function firstList(stage: Stage, tailscaled: Tailscaled, nodePort: number): Promise<Sample> {
  await countsOf(tailscaled);
  const env = {
    ...NO_ROUNDS,
    TRANSPORT: 'tailscale',
    TAILSCALE_SOCKET: tailscaled.place.socketPath,
    OPENCODE_NODE_PORT: String(nodePort),
    HEALTH_CHECK_TIMEOUT_MS: '60000',
  };
  await using server = stage.spawnServer({ env });
  await server.initialize();
  const { data } = await server.call<Listing>('instances');
  const listedMs = performance.now() - server.spawnedAtMs;
  if (data.total !== 1) throw new Error(`Expected one instance, got ${data.total}: ${data.notes.join('; ')}`);
  return { listedMs, statuses: (await countsOf(tailscaled)).status, memoryMb: residentMb(server.pid).now };
}
