import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import { processorMs, residentMb } from '../proc.ts';
import { ENVELOPED, type ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';

export const START_RATIO = 1.15;
/** "No more": the noise between two equal programs. */
export const SILENT_RATIO = 1.02;
/** In the era of 2026-07-28, which needs no SDK. */
export const MODERN_RATIO = 0.85;
/** Its memory then, relative to a bare server's: 48 of 50. */
export const MODERN_MEMORY_RATIO = 0.96;
const SILENT = 50;

/** One program's starts, in order. */
class Starts {
  /** From spawning the process to the answer of tools/list. */
  readonly ms: number[] = [];
  /** Of the process until then. */
  readonly processorMs: number[] = [];
  /** Of its memory then. */
  readonly residentMb: number[] = [];
}

/** Ours in both eras with an empty registry, ours with silent registrations, and a bare server of the SDK, in turn. */
export async function measureStarts(
  stage: Stage,
  pairs: number,
): Promise<Record<'bare' | 'ours' | 'modern' | 'oursSilent', Starts>> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: 0, silent: SILENT });
  const empty = await stage.registry();
  const silent = await stage.registryOf(fleet.ports);
  const starts = { bare: new Starts(), ours: new Starts(), modern: new Starts(), oursSilent: new Starts() };
  await interleave(pairs, {
    bare: (keep) => start(stage.spawnBareServer(tools), keep ? starts.bare : new Starts()),
    ours: (keep) => start(stage.spawnServer({ registry: empty }), keep ? starts.ours : new Starts()),
    modern: (keep) => startModern(stage.spawnServer({ registry: empty }), keep ? starts.modern : new Starts()),
    oursSilent: (keep) => start(stage.spawnServer({ registry: silent }), keep ? starts.oursSilent : new Starts()),
  });
  return starts;
}

export async function startFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  const { bare, ours, modern, oursSilent } = await measureStarts(stage, pairs);
  const share = `${SILENT} registrations that never answer`;
  return [
    figure('start to tools/list, bare SDK server', 'ms', bare.ms),
    figure('start to tools/list, ours', 'ms', ours.ms),
    figure('start to tools/list, ours / bare', '×', ratios(ours.ms, bare.ms), { goal: atMost(START_RATIO) }),
    figure('start to tools/list, ours, 2026-07-28', 'ms', modern.ms),
    figure('start to tools/list, ours, 2026-07-28 / bare', '×', ratios(modern.ms, bare.ms), {
      goal: atMost(MODERN_RATIO),
    }),
    figure('processor time of a start, ours, 2026-07-28 / bare', '×', ratios(modern.processorMs, bare.processorMs)),
    figure('resident memory at tools/list, bare SDK server', 'MB', bare.residentMb),
    figure('resident memory at tools/list, ours', 'MB', ours.residentMb),
    figure('resident memory at tools/list, ours, 2026-07-28', 'MB', modern.residentMb),
    figure('resident memory at tools/list, ours, 2026-07-28 / bare', '×', ratios(modern.residentMb, bare.residentMb), {
      goal: atMost(MODERN_MEMORY_RATIO),
    }),
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
  keep(server, starts, (await server.listTools()).atMs);
}

async function startModern(server: ServerProcess, starts: Starts): Promise<void> {
  await using _ = server;
  await server.discover();
  keep(server, starts, (await server.listTools(ENVELOPED)).atMs);
}

function keep({ pid, spawnedAtMs }: ServerProcess, starts: Starts, atMs: number): void {
  starts.processorMs.push(processorMs(pid));
  starts.residentMb.push(residentMb(pid).now);
  starts.ms.push(atMs - spawnedAtMs);
}
