import { expect, test } from 'vitest';

import type { OpencodeApi } from '../../src/opencode/api.ts';
import { SessionLedger } from '../../src/watch/session-ledger.ts';
import type { SeenWork } from '../../src/watch/seen-work.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

const DIRECTORY = '/home/ada/web';

test('the time that the machine sleeps does not count as silence of a session', async () => {
  const clock = new ManualClock();
  const ledger = new SessionLedger(clock);
  const time = { created: clock.now(), updated: clock.now() };
  const api = { session: async (id: string) => ({ id, title: 'Fix the build', directory: DIRECTORY, time }) };
  const work = {
    running: new Map([['ses_1', { directory: DIRECTORY, waiting: [] }]]),
    unknown: new Set(),
    asked: new Set([DIRECTORY]),
    recent: [],
    retryingIn: [],
    isWhole: true,
  } as unknown as SeenWork;
  await ledger.take(work, api as unknown as OpencodeApi, new AbortController().signal);
  await clock.advance(1_000);
  expect(ledger.lastEvents.get('ses_1')).toBe(clock.now() - 1_000);
  clock.step(8 * 3_600_000);
  expect(ledger.lastEvents.get('ses_1')).toBe(clock.now() - 1_000);
  ledger.noteEvent('ses_1');
  expect(ledger.lastEvents.get('ses_1')).toBe(clock.now());
});
