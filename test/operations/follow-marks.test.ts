import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { FollowMarks } from '../../src/operations/send/follow-marks.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';

let temp: TempDir;
let folder: string;
let marks: FollowMarks;
beforeEach(() => {
  temp = tempDir('follow-marks');
  folder = join(temp.path, 'following');
  marks = new FollowMarks(folder, systemClock);
});
afterEach(() => temp.close());

const DAY_MS = 86_400_000;
const NOW = { untilMs: Number.POSITIVE_INFINITY, sawEnd: true };

it('a session is followed from the beginning of a call to its end', async () => {
  const endCall = marks.begin('ses_1');
  await endCall(undefined);
  expect([...(await marks.read())]).toEqual([]);
  const endSecondCall = marks.begin('ses_1');
  await marks.begin('ses_2')('cancelled');
  expect([...(await marks.read())]).toEqual([['ses_1', NOW]]);
  const before = Date.now() - 10;
  await endSecondCall('completed');
  const followed = (await marks.read()).get('ses_1');
  expect(followed?.sawEnd).toBe(true);
  expect(followed?.untilMs).toBeGreaterThanOrEqual(before);
  expect(followed?.untilMs).toBeLessThanOrEqual(Date.now());
});

it.each([
  ['completed', true],
  ['failed', true],
  ['aborted', true],
  ['interrupted', true],
  ['waiting', false],
  ['running', undefined],
  ['cancelled', undefined],
  ['unknown', undefined],
  ['refused', undefined],
  ['busy', undefined],
] as const)('a call with the outcome %s has seen the end of the turn: %s', async (outcome, sawEnd) => {
  await marks.begin('ses_1')(outcome);
  expect((await marks.read()).get('ses_1')?.sawEnd).toBe(sawEnd);
});

it('a session stays followed when one of two calls ends', async () => {
  const endFirst = marks.begin('ses_1');
  const endSecond = marks.begin('ses_1');
  await endFirst('completed');
  expect((await marks.read()).get('ses_1')).toEqual(NOW);
  await endSecond('cancelled');
  expect((await marks.read()).get('ses_1')?.untilMs).toBeLessThan(Number.POSITIVE_INFINITY);
});

it('marks of a killed process and marks older than a day do not count', async () => {
  mkdirSync(folder);
  // No process has this id: it is above the kernel's limit.
  writeFileSync(join(folder, 'ses_1.99999999.1'), '');
  const ownMark = join(folder, `ses_2.${process.pid}.1`);
  writeFileSync(ownMark, '');
  const old = (Date.now() - DAY_MS - 60_000) / 1_000;
  utimesSync(ownMark, old, old);
  expect([...(await marks.read())]).toEqual([]);
  await marks.begin('ses_3')('completed');
  expect(readdirSync(folder).toSorted()).toEqual(['ses_1.99999999.1', 'ses_3']);
});

it('a session id that is not a file name leaves no mark', async () => {
  await marks.begin('../ses_1')('completed');
  expect([...(await marks.read())]).toEqual([]);
});

it('a call does not fail if the folder cannot be written', async () => {
  writeFileSync(folder, '');
  await marks.begin('ses_1')('completed');
  await expect(marks.read()).rejects.toThrow('ENOTDIR');
});
