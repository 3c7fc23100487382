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

/** One start of a program. */
interface Start {
  /** From spawning the process to the answer of tools/list. */
  readonly ms: number;
  /** Of the process until then. */
  readonly processorMs: number;
  /** Of its memory then. */
  readonly residentMb: number;
}

type Starts = Readonly<Record<keyof Start, readonly number[]>>;

/** Ours in both eras with an empty registry, ours with silent registrations, and a bare server of the SDK, in turn. */
export async function measureStarts(
  stage: Stage,
  pairs: number,
): Promise<Record<'bare' | 'ours' | 'modern' | 'oursSilent', Starts>> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: 0, silent: SILENT });
  const empty = await stage.registry();
  const silent = await stage.registryOf(fleet.ports);
  const samples = await interleave(pairs, {
    bare: () => start(stage.spawnBareServer(tools)),
    ours: () => start(stage.spawnServer({ registry: empty })),
    modern: () => startModern(stage.spawnServer({ registry: empty })),
    oursSilent: () => start(stage.spawnServer({ registry: silent })),
  });
  const startsOf = (starts: readonly Start[]): Starts => ({
    ms: starts.map(({ ms }) => ms),
    processorMs: starts.map((one) => one.processorMs),
    residentMb: starts.map((one) => one.residentMb),
  });
  const { bare, ours, modern, oursSilent } = samples;
  return { bare: startsOf(bare), ours: startsOf(ours), modern: startsOf(modern), oursSilent: startsOf(oursSilent) };
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

async function start(server: ServerProcess): Promise<Start> {
  await using _ = server;
  await server.initialize();
  return measured(server, (await server.listTools()).atMs);
}

async function startModern(server: ServerProcess): Promise<Start> {
  await using _ = server;
  await server.discover();
  return measured(server, (await server.listTools(ENVELOPED)).atMs);
}

function measured({ pid, spawnedAtMs }: ServerProcess, atMs: number): Start {
  return { processorMs: processorMs(pid), residentMb: residentMb(pid).now, ms: atMs - spawnedAtMs };
}
