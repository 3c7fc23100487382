import { describe, expect, test } from 'vitest';

import { createClient } from '../../src/opencode/client.ts';
import type { FollowRequest } from '../../src/turns/follower.ts';
import { STALL_MS } from '../../src/turns/follower.ts';
import { lastTurn } from '../../src/turns/last-turn.ts';
import type { TurnResult } from '../../src/turns/outcome.ts';
import { joinTurn } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, SESSION } from './fake-api.ts';

const ASKED = 'msg_000000000001person00000000';
const ANSWER = 'msg_000000000002assistant0000';

/** A message and a running answer: one part has ended, one runs. */
function running(): FakeApi {
  const api = new FakeApi();
  api.store.push({ info: { id: ASKED, role: 'user', time: { created: 1 } }, parts: [] });
  api.begin(ASKED, ANSWER);
  api.store[1]?.parts.push(
    { id: 'prt_1', messageID: ANSWER, type: 'text', text: 'told before', time: { start: 1, end: 2 } },
    { id: 'prt_2', messageID: ANSWER, type: 'text', text: '' },
  );
  api.setStatus({ type: 'busy' });
  return api;
}

async function join(
  api: FakeApi,
  options: Partial<FollowRequest> = {},
  act?: () => Promise<void>,
  clock = leapingClock(),
): Promise<{ result: TurnResult; shown: string; endMs: number }> {
  let shown = '';
  const result = await joinTurn(
    {
      session: SESSION,
      deadlineMs: clock.monotonic() + 60_000,
      signal: new AbortController().signal,
      onText: (text) => {
        shown += text;
      },
      ...options,
    },
    { api: createClient({ key: 'only', api }, () => Promise.resolve(undefined)), clock },
    act,
  );
  return { result, shown, endMs: clock.now() };
}

describe('a turn that somebody else began', () => {
  test('is followed from now on, without earlier text', async () => {
    const api = running();
    const { result, shown } = await join(api, {}, () => {
      const text = { id: 'prt_2', messageID: ANSWER, type: 'text', text: 'and this', time: { start: 1, end: 3 } };
      const message = api.store[1];
      if (message !== undefined) message.parts[1] = text;
      api.finish(ANSWER, '');
      const [, finished] = api.store;
      if (finished !== undefined && message !== undefined) finished.parts.push(...message.parts);
      api.setStatus({ type: 'idle' });
      return Promise.resolve();
    });
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, messageId: ASKED, text: 'and this' });
    expect(result.wholeText).toBe('told before\n\nand this');
    expect(shown).toBe('and this');
  });

  test('in a session without a message: `act` still runs', async () => {
    let acts = 0;
    const { result } = await join(new FakeApi(), {}, () => Promise.resolve(void (acts += 1)));
    expect([acts, result.outcome.kind]).toEqual([1, 'completed']);
  });

  test('that waits is reported at once, without an event', async () => {
    const api = running();
    api.permissionList.push({
      id: 'per_1',
      sessionID: SESSION.id,
      permission: 'bash',
      patterns: ['ls'],
      always: [],
      tool: { messageID: ANSWER },
    });
    const { result } = await join(api);
    expect(result.outcome).toMatchObject({ kind: 'waiting', waiting: { request: { id: 'per_1' } }, ofSubAgent: false });
  });

  test('that has ended is reported at once, and a session without messages is complete', async () => {
    const api = running();
    api.finish(ANSWER, 'all of it');
    api.setStatus({ type: 'idle' });
    expect((await join(api)).result).toMatchObject({
      outcome: { kind: 'completed' },
      text: '',
      wholeText: 'all of it',
    });
    expect(await lastTurn(api, SESSION)).toMatchObject({ outcome: { kind: 'completed' }, text: 'all of it' });
    expect((await join(new FakeApi())).result.outcome).toEqual({ kind: 'completed' });
  });

  test('is not sent again if it never began', async () => {
    const api = new FakeApi();
    api.store.push({ info: { id: ASKED, role: 'user', time: { created: 1 } }, parts: [] });
    expect((await join(api)).result.outcome).toMatchObject({ kind: 'interrupted' });
    expect(api.prompts).toEqual([]);
  });

  test('rejects with the error of `act`', async () => {
    await expect(join(running(), {}, () => Promise.reject(new Error('refused')))).rejects.toThrow('refused');
  });
});

describe('silence', () => {
  test('for long enough is reported as stalled, with its beginning', async () => {
    const clock = leapingClock();
    const startMs = clock.now();
    const { result } = await join(running(), { deadlineMs: clock.monotonic() + STALL_MS }, undefined, clock);
    expect(result.outcome).toEqual({ kind: 'running', stalledSinceMs: startMs });
  });

  test('is counted over several calls while nothing moves, and starts again with any change', async () => {
    const clock = leapingClock();
    const startMs = clock.now();
    const api = running();
    const follow = async (lastSign: TurnResult['lastSign']): Promise<TurnResult> =>
      (await join(api, { deadlineMs: clock.monotonic() + STALL_MS / 2, lastSign }, undefined, clock)).result;
    const first = await follow(undefined);
    expect(first.outcome).toEqual({ kind: 'running' });
    const second = await follow(first.lastSign);
    expect(second.outcome).toEqual({ kind: 'running', stalledSinceMs: startMs });
    api.store[1]?.parts.push({ id: 'prt_3', messageID: ANSWER, type: 'tool', tool: 'bash' });
    expect((await follow(second.lastSign)).outcome).toEqual({ kind: 'running' });
  });

  test('does not count while the agent says something', async () => {
    const clock = leapingClock();
    const api = running();
    let asked = 0;
    api.onStatuses = () => {
      asked += 1;
      api.emit('message.part.delta', { messageID: ANSWER, partID: 'prt_2', field: 'text', delta: `${asked} ` });
    };
    const { result } = await join(api, { deadlineMs: clock.monotonic() + 2 * STALL_MS }, undefined, clock);
    expect(result.outcome).toEqual({ kind: 'running' });
  });
});
