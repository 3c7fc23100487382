import { setTimeout as delay } from 'node:timers/promises';

import { atMost, type Figure, figure } from '../figure.ts';
import { get, type Place } from '../get.ts';
import { processorMs, residentMb } from '../proc.ts';
import type { Stage } from '../stage.ts';
import { openNodeScene } from './node.ts';

const MINUTES = 10;
const MINUTE_MS = 60_000;
/** Machines that hold a request here. */
const WATCHERS = 5;
/** A thousandth of a core. */
const MOST_PROCESSOR_MS = MINUTE_MS / 1000;
const MOST_MB = 90;

/** The node service's load while idle, alone and with held requests of other machines; ten minutes each. */
export async function nodeIdleFigures(stage: Stage): Promise<readonly Figure[]> {
  await using scene = await openNodeScene(stage);
  const { node, list } = scene;
  const alone = await minutesOf(node.pid);
  const end = new AbortController();
  const watching = Array.from({ length: WATCHERS }, () => watch(list, end.signal));
  const watched = await minutesOf(node.pid);
  end.abort();
  await Promise.all(watching);
  return [
    figure('node service idle: processor time in a minute', 'ms', alone.processorMs, {
      goal: atMost(MOST_PROCESSOR_MS),
    }),
    figure(`node service idle: resident memory after ${MINUTES} minutes`, 'MB', alone.residentMb, {
      goal: atMost(MOST_MB),
    }),
    figure(`… with ${WATCHERS} that wait for news: processor time in a minute`, 'ms', watched.processorMs),
    figure(`… with ${WATCHERS} that wait for news: resident memory`, 'MB', watched.residentMb, {
      goal: atMost(MOST_MB),
    }),
  ];
}

async function minutesOf(
  pid: number,
): Promise<{ readonly processorMs: readonly number[]; readonly residentMb: number }> {
  const samples: number[] = [];
  for (let minute = 0; minute < MINUTES; minute += 1) {
    const before = processorMs(pid);
    await delay(MINUTE_MS);
    samples.push(processorMs(pid) - before);
  }
  return { processorMs: samples, residentMb: residentMb(pid).now };
}

/** As another machine's source does: one held request after another. */
async function watch(list: Place, signal: AbortSignal): Promise<void> {
  const { etag } = await get(list);
  const headers = { 'if-none-match': etag, prefer: 'wait=25' };
  while (!signal.aborted)
    await get({ ...list, headers }, { expect: 304, signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
}
