import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import { processorMs, residentMb } from '../proc.ts';
import { ENVELOPED, type ServerProcess } from '../server-process.ts';
import type { Stage } from '../stage.ts';
import { ratios } from '../statistics.ts';

export const START_RATIO = 1.15;
/** Silent registrations must not slow the start: 2 % is the noise between two equal programs. */
export const SILENT_RATIO = 1.02;
/** With protocol version 2026-07-28, which needs no SDK. */
export const MODERN_RATIO = 0.85;
/** Memory with 2026-07-28, relative to a bare server's: 48 MB of 50. */
export const MODERN_MEMORY_RATIO = 0.96;
const SILENT_REGISTRATIONS = 50;

/** One start of a program. */
interface Start {
  /** From spawning the process to the answer of tools/list. */
  readonly ms: number;
  /** Processor time of the process until that answer. */
  readonly processorMs: number;
  /** Resident memory of the process at that answer. */
  readonly residentMb: number;
}

type Starts = Readonly<Record<keyof Start, readonly number[]>>;

/** Ours in both eras with an empty registry, ours with silent registrations, and a bare server of the SDK, in turn. */
export async function measureStarts(
  stage: Stage,
  pairs: number,
): Promise<Record<'bare' | 'ours' | 'modern' | 'oursSilent', Starts>> {
  const tools = await countTools(stage);
  await using fleet = await stage.startFleet({ live: 0, silent: SILENT_REGISTRATIONS });
  const empty = await stage.registry();
  const silent = await stage.registryOf(fleet.ports);
  const samples = await interleave(pairs, {
    bare: () => startWithInitialize(stage.spawnBareServer(tools)),
    ours: () => startWithInitialize(stage.spawnServer({ registry: empty })),
    modern: () => startWithDiscover(stage.spawnServer({ registry: empty })),
    oursSilent: () => startWithInitialize(stage.spawnServer({ registry: silent })),
  });
  const startsOf = (starts: readonly Start[]): Starts => ({
    ms: starts.map(({ ms }) => ms),
    processorMs: starts.map((start) => start.processorMs),
    residentMb: starts.map((start) => start.residentMb),
  });
  const { bare, ours, modern, oursSilent } = samples;
  return { bare: startsOf(bare), ours: startsOf(ours), modern: startsOf(modern), oursSilent: startsOf(oursSilent) };
}

export async function startFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  const { bare, ours, modern, oursSilent } = await measureStarts(stage, pairs);
  const silentRegistrations = `${SILENT_REGISTRATIONS} registrations that never answer`;
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
    figure(`start with ${silentRegistrations}, ours / bare`, '×', ratios(oursSilent.ms, bare.ms), {
      goal: atMost(START_RATIO),
    }),
    figure(`start with ${silentRegistrations}, with / without`, '×', ratios(oursSilent.ms, ours.ms), {
      goal: atMost(SILENT_RATIO),
    }),
    figure('processor time of a start, ours / bare', '×', ratios(ours.processorMs, bare.processorMs)),
    figure(
      `processor time of a start with ${silentRegistrations}, with / without`,
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

async function startWithInitialize(server: ServerProcess): Promise<Start> {
  await using _ = server;
  await server.initialize();
  return toStart(server, (await server.listTools()).atMs);
}

async function startWithDiscover(server: ServerProcess): Promise<Start> {
  await using _ = server;
  await server.discover();
  return toStart(server, (await server.listTools(ENVELOPED)).atMs);
}

function toStart({ pid, spawnedAtMs }: ServerProcess, atMs: number): Start {
  return { processorMs: processorMs(pid), residentMb: residentMb(pid).now, ms: atMs - spawnedAtMs };
}
