import { describe, expect, test } from 'vitest';

import type { FollowRequest } from '../../src/turns/follower.ts';
import { STALL_MS } from '../../src/turns/follower.ts';
import { lastTurn } from '../../src/turns/last-turn.ts';
import type { TurnResult } from '../../src/turns/outcome.ts';
import { joinTurn } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, permission, SESSION } from './fake-api.ts';

const ASKED = 'msg_000000000001person00000000';
const ANSWER = 'msg_000000000002assistant0000';

/** A message and a running answer: one part has ended, one runs. */
function running(): FakeApi {
  const api = new FakeApi();
  api.store.push({ info: { id: ASKED, role: 'user', time: { created: 1 } }, parts: [] });
  api.begin(ASKED, ANSWER);
  api.store[1]?.parts.push(
    { id: 'prt_1', messageID: ANSWER, type: 'text', text: 'earlier text', time: { start: 1, end: 2 } },
    { id: 'prt_2', messageID: ANSWER, type: 'text', text: '' },
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
  test('begins now, without earlier text', async () => {
    const api = running();
    const act = (): Promise<void> => {
      const [, answer] = api.store;
      const [before] = answer!.parts;
      const text = { id: 'prt_2', messageID: ANSWER, type: 'text', text: 'and this', time: { start: 1, end: 3 } };
      api.finish(ANSWER, '');
      api.store[1]!.parts.push(before!, text);
      api.setStatus({ type: 'idle' });
      return Promise.resolve();
    };
    expect(await join(api, { act })).toMatchObject({
      outcome: { kind: 'completed' },
      messageId: ASKED,
      text: 'and this',
      wholeText: 'earlier text\n\nand this',
      shown: 'and this',
    });
  });

  test('is complete in a session without messages, after `act`', async () => {
    let acts = 0;
    const { outcome } = await join(new FakeApi(), { act: () => Promise.resolve(void (acts += 1)) });
    expect([acts, outcome]).toEqual([1, { kind: 'completed' }]);
  });

  test('reports its request at once, without an event', async () => {
    const api = running();
    api.permissionList.push(permission(ANSWER));
    expect((await join(api)).outcome).toMatchObject({
      kind: 'waiting',
      waiting: { request: { id: 'per_1' } },
      ofSubAgent: false,
    });
  });

  test('reports the whole text of one that has ended', async () => {
    const api = running();
    api.finish(ANSWER, 'all of it');
    api.setStatus({ type: 'idle' });
    expect(await join(api)).toMatchObject({ outcome: { kind: 'completed' }, text: '', wholeText: 'all of it' });
    expect(await lastTurn(api, SESSION)).toMatchObject({ outcome: { kind: 'completed' }, text: 'all of it' });
  });

  test('does not send a message again that was never begun', async () => {
    const api = new FakeApi();
    api.store.push({ info: { id: ASKED, role: 'user', time: { created: 1 } }, parts: [] });
    expect((await join(api)).outcome).toMatchObject({ kind: 'interrupted' });
    expect(api.prompts).toEqual([]);
  });

  test('rejects with the error of `act`', async () => {
    await expect(join(running(), { act: () => Promise.reject(new Error('refused')) })).rejects.toThrow('refused');
  });
});

describe('a silent turn', () => {
  test('is stalled once it was silent for long, over several calls too, until something changes', async () => {
    const clock = leapingClock();
    const startMs = clock.now();
    const api = running();
    const follow = async (lastSign?: TurnResult['lastSign']): Promise<TurnResult> =>
      await join(api, { deadlineMs: clock.monotonic() + STALL_MS / 2, lastSign, clock });
    const first = await follow();
    expect(first.outcome).toEqual({ kind: 'running' });
    const second = await follow(first.lastSign);
    expect(second.outcome).toEqual({ kind: 'running', stalledSinceMs: startMs });
    api.store[1]?.parts.push({ id: 'prt_3', messageID: ANSWER, type: 'tool', tool: 'bash' });
    expect((await follow(second.lastSign)).outcome).toEqual({ kind: 'running' });
  });

  test('is not stalled while text streams', async () => {
    const clock = leapingClock();
    const api = running();
    let asked = 0;
    api.onStatuses = () => {
      asked += 1;
      api.emit('message.part.delta', { messageID: ANSWER, partID: 'prt_2', field: 'text', delta: `${asked} ` });
    };
    const { outcome } = await join(api, { deadlineMs: clock.monotonic() + 2 * STALL_MS, clock });
    expect(outcome).toEqual({ kind: 'running' });
  });
});
