import { describe, expect, test } from 'vitest';

import type { FollowRequest } from '../../src/turns/follower.ts';
import { STALL_MS } from '../../src/turns/follower.ts';
import { lastTurn } from '../../src/turns/last-turn.ts';
import type { TurnResult } from '../../src/turns/outcome.ts';
import { joinTurn } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, permission, SESSION } from './fake-api.ts';

const MESSAGE_ID = 'msg_000000000001person00000000';
const ANSWER_ID = 'msg_000000000002assistant0000';

/** A message and its running answer, which has one ended and one running part. */
function runningTurn(): FakeApi {
  const api = new FakeApi();
  api.store.push({ info: { id: MESSAGE_ID, role: 'user', time: { created: 1 } }, parts: [] });
  api.begin(MESSAGE_ID, ANSWER_ID);
  api.store[1]?.parts.push(
    { id: 'prt_1', messageID: ANSWER_ID, type: 'text', text: 'earlier text', time: { start: 1, end: 2 } },
    { id: 'prt_2', messageID: ANSWER_ID, type: 'text', text: '' },
  );
  api.setStatus({ type: 'busy' });
  return api;
}

async function join(
  api: FakeApi,
  {
    act,
    clock = leapingClock(),
    ...options
  }: Partial<FollowRequest> & {
    readonly act?: () => Promise<void>;
    readonly clock?: ReturnType<typeof leapingClock>;
  } = {},
): Promise<TurnResult & { readonly shown: string }> {
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
    { api: api.client(), clock },
    act,
  );
  return { ...result, shown };
}

describe("following another client's turn", () => {
  test('shows only text that is written from now on', async () => {
    const api = runningTurn();
    const act = (): Promise<void> => {
      const [, answer] = api.store;
      const [earlierPart] = answer!.parts;
      const text = { id: 'prt_2', messageID: ANSWER_ID, type: 'text', text: 'and this', time: { start: 1, end: 3 } };
      api.finish(ANSWER_ID, '');
      api.store[1]!.parts.push(earlierPart!, text);
      api.setStatus({ type: 'idle' });
      return Promise.resolve();
    };
    expect(await join(api, { act })).toMatchObject({
      outcome: { kind: 'completed' },
      messageId: MESSAGE_ID,
      text: 'and this',
      wholeText: 'earlier text\n\nand this',
      shown: 'and this',
    });
  });

  test('completes after `act` in a session without messages', async () => {
    let actCalls = 0;
    const { outcome } = await join(new FakeApi(), { act: () => Promise.resolve(void (actCalls += 1)) });
    expect([actCalls, outcome]).toEqual([1, { kind: 'completed' }]);
  });

  test('reports a pending request immediately, without an event', async () => {
    const api = runningTurn();
    api.permissionList.push(permission(ANSWER_ID));
    expect((await join(api)).outcome).toMatchObject({
      kind: 'waiting',
      waiting: { request: { id: 'per_1' } },
      ofSubAgent: false,
    });
  });

  test('reports the whole text of a turn that has ended', async () => {
    const api = runningTurn();
    api.finish(ANSWER_ID, 'all of it');
    api.setStatus({ type: 'idle' });
    expect(await join(api)).toMatchObject({ outcome: { kind: 'completed' }, text: '', wholeText: 'all of it' });
    expect(await lastTurn(api, SESSION)).toMatchObject({ outcome: { kind: 'completed' }, text: 'all of it' });
  });

  test('does not resend a message that the model never began to answer', async () => {
    const api = new FakeApi();
    api.store.push({ info: { id: MESSAGE_ID, role: 'user', time: { created: 1 } }, parts: [] });
    expect((await join(api)).outcome).toMatchObject({ kind: 'interrupted' });
    expect(api.prompts).toEqual([]);
  });

  test('rejects with the error of `act`', async () => {
    await expect(join(runningTurn(), { act: () => Promise.reject(new Error('refused')) })).rejects.toThrow('refused');
  });
});

describe('a silent turn', () => {
  test('is stalled after STALL_MS of silence, even over several calls, until something changes', async () => {
    const clock = leapingClock();
    const startMs = clock.now();
    const api = runningTurn();
    const follow = async (lastSign?: TurnResult['lastSign']): Promise<TurnResult> =>
      await join(api, { deadlineMs: clock.monotonic() + STALL_MS / 2, lastSign, clock });
    const first = await follow();
    expect(first.outcome).toEqual({ kind: 'running' });
    const second = await follow(first.lastSign);
    expect(second.outcome).toEqual({ kind: 'running', stalledSinceMs: startMs });
    api.store[1]?.parts.push({ id: 'prt_3', messageID: ANSWER_ID, type: 'tool', tool: 'bash' });
    expect((await follow(second.lastSign)).outcome).toEqual({ kind: 'running' });
  });

  test('is not stalled while text streams', async () => {
    const clock = leapingClock();
    const api = runningTurn();
    let statusRequests = 0;
    api.onStatuses = () => {
      statusRequests += 1;
      api.emit('message.part.delta', {
        messageID: ANSWER_ID,
        partID: 'prt_2',
        field: 'text',
        delta: `${statusRequests} `,
      });
    };
    const { outcome } = await join(api, { deadlineMs: clock.monotonic() + 2 * STALL_MS, clock });
    expect(outcome).toEqual({ kind: 'running' });
  });
});
