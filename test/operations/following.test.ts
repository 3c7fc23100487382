import { expect, test } from 'vitest';

import type { Instance } from '../../src/model/instance.ts';
import type { Message } from '../../src/opencode/schema.ts';
import { followOn, remember, stalledSince } from '../../src/operations/send/following.ts';
import { sessionState } from '../../src/operations/sessions/session-state.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, SESSION } from '../turns/fake-api.ts';
import type { Connected } from '../../src/operations/runtime.ts';
import type { FollowMarks } from '../../src/operations/send/follow-marks.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import { stageOf } from '../../src/turns/follower.ts';

const instance = { server: { key: 'one' } } as Instance;
const session = { id: 'ses_1', title: '', directory: '/p', time: { created: 1, updated: 1 } };
const message = (parts: Message['parts']): Message => ({
  info: { id: 'msg_1', role: 'assistant', parentID: 'msg_0', time: { created: 1 } },
  parts,
});

test('a call that only follows does not mark the session, a call that acts does', async () => {
  const markedSessions: string[] = [];
  const clock = leapingClock();
  const marks = { begin: (id: string) => (markedSessions.push(id), async () => {}) } as unknown as FollowMarks;
  const runtime = { ...testRuntime({} as Fleet), clock, marks };
  const connected = { api: new FakeApi().client(), instance } as unknown as Connected;
  const follow = (more: object) => followOn(runtime, connected, SESSION, testCall(), more);
  await follow({});
  expect(markedSessions).toEqual([]);
  await follow({ act: () => Promise.resolve() });
  expect(markedSessions).toEqual([SESSION.id]);
});

test('a stalled session stays stalled until its turn moves', async () => {
  const clock = new ManualClock();
  const runtime = { ...testRuntime({} as Fleet), clock };
  const before = message([]);
  expect(stalledSince(runtime, instance, session, before)).toBeUndefined();
  const lastSign = { atMs: clock.monotonic(), stage: stageOf([before]), stalled: true };
  remember(runtime, instance, session, { lastSign });
  const sinceMs = clock.now();
  await clock.advance(1_000);
  const since = stalledSince(runtime, instance, session, before);
  expect(since).toBe(sinceMs);
  expect(sessionState({ type: 'busy' }, { stalledSinceMs: since, nowMs: 2_000 })).toEqual({
    state: 'stalled',
    reason: `no sign of life since ${new Date(sinceMs).toISOString()}`,
  });
  const moved = message([{ id: 'prt_1', messageID: 'msg_1', type: 'text' }]);
  expect(stalledSince(runtime, instance, session, moved)).toBeUndefined();
  remember(runtime, instance, session, { lastSign: { ...lastSign, stalled: false } });
  expect(stalledSince(runtime, instance, session, before)).toBeUndefined();
});

test('a stalled session that waits, is retried or is idle is not shown as stalled', () => {
  const facts = { stalledSinceMs: 1, nowMs: 2 };
  expect(sessionState({ type: 'busy' }, { ...facts, waiting: ['permission x'] }).state).toBe('waiting');
  expect(sessionState({ type: 'retry', attempt: 1, message: 'x' }, facts).state).toBe('retrying');
  expect(sessionState(undefined, facts).state).toBe('idle');
});
