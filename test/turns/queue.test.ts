import { expect, test } from 'vitest';

import { runTurn } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, SESSION } from './fake-api.ts';

test.each([
  ['the deadline has passed', 60_000, () => {}],
  [
    'the running turn waits for an answer',
    0,
    (api: FakeApi) => {
      api.begin('msg_000000000001a', 'msg_000000000002a');
      api.permissionList.push({
        id: 'per_1',
        sessionID: SESSION.id,
        permission: 'bash',
        patterns: ['ls'],
        always: [],
        tool: { messageID: 'msg_000000000002a' },
      });
    },
  ],
])('a message that is queued for a busy session is not sent once %s', async (_, expectedWaitMs, setUp) => {
  const api = new FakeApi();
  api.status = { type: 'busy' };
  setUp(api);
  const clock = leapingClock();
  const startMs = clock.monotonic();
  const { outcome } = await runTurn(
    {
      session: SESSION,
      text: 'do it',
      whenBusy: 'queue',
      deadlineMs: startMs + 60_000,
      signal: new AbortController().signal,
      onText: () => {},
    },
    { api: api.client(), clock },
  );
  expect([outcome.kind, clock.monotonic() - startMs, api.prompts]).toEqual(['busy', expectedWaitMs, []]);
});
