import { expect, test } from 'vitest';

import { SurveyPace } from '../../src/watch/survey-pace.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

/** A pace, and when it had its server asked so far, counted from now. */
function pacing(share = 0) {
  const clock = new ManualClock();
  const startMs = clock.monotonic();
  const pace = new SurveyPace(clock, share);
  pace.hint('now');
  const end = new AbortController();
  const asked: string[] = [];
  const run = (async () => {
    for (;;) {
      const why = await pace.next(end.signal);
      if (end.signal.aborted) return;
      asked.push(`${clock.monotonic() - startMs} ${why}`);
    }
  })();
  return { clock, pace, asked, end: () => (end.abort(), run) };
}

test('a server is asked at once, and again within the minute for which that counts', async () => {
  const { clock, asked } = pacing();
  await clock.advance(100_000);
  expect(asked).toEqual(['0 hinted', '45000 scheduled', '90000 scheduled']);
});

test('servers that were found together are not asked together', async () => {
  const { clock, asked } = pacing(1);
  await clock.advance(50_000);
  expect(asked).toEqual(['0 hinted', '30000 scheduled']);
});

test('each of a few changes is asked about at once', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(10_000);
  for (let change = 0; change < 5; change += 1) {
    pace.hint('now');
    await clock.advance(10);
  }
  expect(asked.slice(1)).toEqual(['10000 hinted', '10010 hinted', '10020 hinted', '10030 hinted', '10040 hinted']);
});

test('what goes on changing is asked about ten times a second', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(10_000);
  for (let change = 0; change < 500; change += 1) {
    pace.hint('now');
    await clock.advance(10);
  }
  // Five at once, and ten for each of the five seconds.
  expect(asked.slice(1).length).toBe(55);
  // A permission that is asked for meanwhile is seen with the next one, a tenth of a second away at most.
  const times = asked.slice(1).map((line) => Number.parseInt(line, 10));
  expect(Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? 0)))).toBe(100);
  // The last change is not left out.
  expect(asked.at(-1)).toBe('15000 hinted');
  await clock.advance(20_000);
  expect(asked.at(-1)).toBe('15000 hinted');
});

test('many changes at one time are one', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(10_000);
  for (let change = 0; change < 500; change += 1) pace.hint('now');
  await clock.advance(20_000);
  expect(asked.slice(1)).toEqual(['10000 hinted']);
});

test('what is not urgent waits until a second after the last time, and takes nothing from what is', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(10_000);
  pace.hint('soon');
  await clock.advance(10);
  for (let change = 0; change < 50; change += 1) {
    pace.hint('soon');
    await clock.advance(10);
  }
  pace.hint('now');
  pace.hint('soon');
  await clock.advance(2000);
  expect(asked.slice(1)).toEqual(['10000 hinted', '10510 hinted']);
});

test('a server that does not answer whole is asked again, later each time', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(0);
  for (let times = 0; times < 6; times += 1) {
    pace.answered(false);
    await clock.advance(15_000);
  }
  expect(asked).toEqual([
    '0 hinted',
    ...[1000, 17_000, 34_000, 53_000, 75_000, 90_000].map((atMs) => `${atMs} scheduled`),
  ]);
  pace.answered(true);
  pace.answered(false);
  await clock.advance(1000);
  expect(asked.at(-1)).toBe('91000 scheduled');
});

test('what is asked meanwhile does not put off what was to be asked by then', async () => {
  const { clock, pace, asked } = pacing();
  await clock.advance(10_000);
  pace.within(1000);
  pace.hint('now');
  await clock.advance(2000);
  expect(asked.slice(1)).toEqual(['10000 hinted', '11000 scheduled']);
});

test('it ends when its signal aborts', async () => {
  const { clock, end, asked } = pacing();
  await clock.advance(0);
  await end();
  expect(asked).toEqual(['0 hinted']);
});
