import type { Registry } from '../../test/rig/registry.ts';
import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import { processorMs } from '../proc.ts';
import type { ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';

export const START_RATIO = 1.15;
/** "No more": what a clock can tell of two equal programs. */
const SAME = 1.02;
const SILENT = 50;

/** From the making of the process to the answer of tools/list, against a bare server of the SDK. */
export async function startFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: 0, silent: SILENT });
  const empty = await stage.registry();
  const silent = await stage.registryOf(fleet.ports);
  const processor: Record<'bare' | 'ours' | 'oursSilent', number[]> = { bare: [], ours: [], oursSilent: [] };
  const ours = (registry: Registry): ServerProcess => stage.spawnServer({ registry });
  const {
    bare,
    ours: alone,
    oursSilent,
  } = await interleave(pairs, {
    bare: () => start(stage.spawnBareServer(tools), processor.bare),
    ours: () => start(ours(empty), processor.ours),
    oursSilent: () => start(ours(silent), processor.oursSilent),
  });
  const share = `${SILENT} registrations that never answer`;
  return [
    figure(`start to tools/list, bare SDK server (${tools} tools)`, 'ms', bare),
    figure('start to tools/list, ours', 'ms', alone),
    figure('start to tools/list, ours / bare', '×', ratios(alone, bare), { goal: atMost(START_RATIO) }),
    figure(`start with ${share}, ours / bare`, '×', ratios(oursSilent, bare), { goal: atMost(START_RATIO) }),
    figure(`start with ${share}, with / without`, '×', ratios(oursSilent, alone), { goal: atMost(SAME) }),
    figure('processor time of a start, ours / bare', '×', ratios(processor.ours, processor.bare)),
    figure(
      `processor time of a start with ${share}, with / without`,
      '×',
      ratios(processor.oursSilent, processor.ours),
    ),
  ];
}

export async function countTools(stage: Stage): Promise<number> {
  await using server = stage.spawnServer({});
  await server.initialize();
  const { count } = await server.listTools();
  return count;
}

async function start(server: ServerProcess, processor: number[]): Promise<number> {
  await using _ = server;
  await server.initialize();
  const { atMs } = await server.listTools();
  processor.push(processorMs(server.pid));
  return atMs - server.spawnedAtMs;
}
