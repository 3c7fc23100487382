import { expect, test } from 'vitest';

import { SurveyPace } from '../../src/watch/survey-pace.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

/** Surveys at the pace until `end`; `surveys` lists the time in ms since the start and the reason of each. */
function runSurveys(share = 0) {
  const clock = new ManualClock();
  const startMs = clock.monotonic();
  const pace = new SurveyPace(clock, share);
  pace.hint('now');
  const controller = new AbortController();
  const surveys: string[] = [];
  const run = (async () => {
    for (;;) {
      const why = await pace.next(controller.signal);
      if (controller.signal.aborted) return;
      surveys.push(`${clock.monotonic() - startMs} ${why}`);
    }
  })();
  return { clock, pace, surveys, end: () => (controller.abort(), run) };
}

test.each([
  [0, ['0 hinted', '52000 scheduled', '104000 scheduled']],
  [1, ['0 hinted', '42000 scheduled', '84000 scheduled']],
])('surveys immediately, then again before the state is 60 s old, spread by the share %i', async (share, expected) => {
  const { clock, surveys } = runSurveys(share);
  await clock.advance(110_000);
  expect(surveys).toEqual(expected);
});

test('surveys immediately for each of a few changes', async () => {
  const { clock, pace, surveys } = runSurveys();
  await clock.advance(10_000);
  for (let change = 0; change < 5; change += 1) {
    pace.hint('now');
    await clock.advance(10);
  }
  expect(surveys.slice(1)).toEqual(['10000 hinted', '10010 hinted', '10020 hinted', '10030 hinted', '10040 hinted']);
});

test('surveys ten times a second while changes continue', async () => {
  const { clock, pace, surveys } = runSurveys();
  await clock.advance(10_000);
  for (let change = 0; change < 500; change += 1) {
    pace.hint('now');
    await clock.advance(10);
  }
  // Five immediately, then ten in each of five seconds.
  expect(surveys.slice(1).length).toBe(55);
  // A permission request meanwhile shows within a tenth of a second.
  const times = surveys.slice(1).map((line) => Number.parseInt(line, 10));
  expect(Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? 0)))).toBe(100);
  // The last change is surveyed too.
  expect(surveys.at(-1)).toBe('15000 hinted');
  await clock.advance(20_000);
  expect(surveys.at(-1)).toBe('15000 hinted');
});

test('surveys once for many changes at one moment', async () => {
  const { clock, pace, surveys } = runSurveys();
  await clock.advance(10_000);
  for (let change = 0; change < 500; change += 1) pace.hint('now');
  await clock.advance(20_000);
  expect(surveys.slice(1)).toEqual(['10000 hinted']);
});

test('delays a change that is not urgent to a second after the last survey, without delaying urgent ones', async () => {
  const { clock, pace, surveys } = runSurveys();
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
  expect(surveys.slice(1)).toEqual(['10000 hinted', '10510 hinted']);
});

test('repeats an incomplete survey, with growing delays', async () => {
  const { clock, pace, surveys } = runSurveys();
  await clock.advance(0);
  for (let times = 0; times < 6; times += 1) {
    pace.answered(false);
    await clock.advance(15_000);
  }
  expect(surveys).toEqual([
    '0 hinted',
    ...[1000, 17_000, 34_000, 53_000, 75_000, 90_000].map((atMs) => `${atMs} scheduled`),
  ]);
  pace.answered(true);
  pace.answered(false);
  await clock.advance(1000);
  expect(surveys.at(-1)).toBe('91000 scheduled');
});

test('an urgent survey does not postpone a scheduled one', async () => {
  const { clock, pace, surveys } = runSurveys();
  await clock.advance(10_000);
  pace.within(1000);
  pace.hint('now');
  await clock.advance(2000);
  expect(surveys.slice(1)).toEqual(['10000 hinted', '11000 scheduled']);
});

test('ends when its signal aborts', async () => {
  const { clock, end, surveys } = runSurveys();
  await clock.advance(0);
  await end();
  expect(surveys).toEqual(['0 hinted']);
});
