import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import { processorMs } from '../proc.ts';
import type { ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';

export const START_RATIO = 1.15;
/** "No more": what a clock can tell of two equal programs. */
export const SILENT_RATIO = 1.02;
const SILENT = 50;

/** Of one program's starts, in the order in which they were made. */
class Starts {
  /** From the making of the process to the answer of tools/list. */
  readonly ms: number[] = [];
  /** Of the process until then. */
  readonly processorMs: number[] = [];
}

/** Ours with an empty registry, ours with registrations that never answer, and a bare server of the SDK, in turn. */
export async function measureStarts(
  stage: Stage,
  pairs: number,
): Promise<Record<'bare' | 'ours' | 'oursSilent', Starts>> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: 0, silent: SILENT });
  const empty = await stage.registry();
  const silent = await stage.registryOf(fleet.ports);
  const starts = { bare: new Starts(), ours: new Starts(), oursSilent: new Starts() };
  await interleave(pairs, {
    bare: (keep) => start(stage.spawnBareServer(tools), keep ? starts.bare : new Starts()),
    ours: (keep) => start(stage.spawnServer({ registry: empty }), keep ? starts.ours : new Starts()),
    oursSilent: (keep) => start(stage.spawnServer({ registry: silent }), keep ? starts.oursSilent : new Starts()),
  });
  return starts;
}

export async function startFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  const { bare, ours, oursSilent } = await measureStarts(stage, pairs);
  const share = `${SILENT} registrations that never answer`;
  return [
    figure('start to tools/list, bare SDK server', 'ms', bare.ms),
    figure('start to tools/list, ours', 'ms', ours.ms),
    figure('start to tools/list, ours / bare', '×', ratios(ours.ms, bare.ms), { goal: atMost(START_RATIO) }),
    figure(`start with ${share}, ours / bare`, '×', ratios(oursSilent.ms, bare.ms), { goal: atMost(START_RATIO) }),
    figure(`start with ${share}, with / without`, '×', ratios(oursSilent.ms, ours.ms), { goal: atMost(SILENT_RATIO) }),
    figure('processor time of a start, ours / bare', '×', ratios(ours.processorMs, bare.processorMs)),
    figure(
      `processor time of a start with ${share}, with / without`,
      '×',
      ratios(oursSilent.processorMs, ours.processorMs),
    ),
  ];
}

export async function countTools(stage: Stage): Promise<number> {
  await using server = stage.spawnServer({});
  await server.initialize();
  const { count } = await server.listTools();
  return count;
}

async function start(server: ServerProcess, starts: Starts): Promise<void> {
  await using _ = server;
  await server.initialize();
  const { atMs } = await server.listTools();
  starts.processorMs.push(processorMs(server.pid));
  starts.ms.push(atMs - server.spawnedAtMs);
}
