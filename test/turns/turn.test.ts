import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import { type NextEndpoint, createClient } from '../../src/opencode/client.ts';
import { RequestError } from '../../src/http/exchange.ts';
import { CallOver } from '../../src/turns/call-limit.ts';
import type { TurnResult } from '../../src/turns/outcome.ts';
import { resumeTurn, runTurn, type TurnRequest } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, SESSION, successorOf } from './fake-api.ts';

const lost = (): never => {
  throw new RequestError('broken', 'POST /session/x/prompt_async: socket hang up');
};

interface Run {
  readonly result: TurnResult;
  readonly shown: string;
}

async function run(
  api: FakeApi,
  options: Partial<TurnRequest> = {},
  clock = leapingClock(),
  next: NextEndpoint = () => Promise.resolve(undefined),
): Promise<Run> {
  let shown = '';
  const result = await runTurn(
    {
      session: SESSION,
      text: 'do it',
      deadlineMs: clock.monotonic() + 60_000,
      signal: new AbortController().signal,
      onText: (text) => {
        shown += text;
      },
      ...options,
    },
    { api: createClient({ key: 'first', api }, next), clock },
  );
  return { result, shown };
}

test('a turn that an earlier call began, and that is over, is told at once', async () => {
  const api = new FakeApi();
  const prompt = { sessionId: SESSION.id, messageId: 'msg_000000000010abc', partId: 'prt_a', text: 'do it' };
  api.accept(prompt);
  api.answer(prompt.messageId, 'done');
  const clock = leapingClock();
  const startMs = clock.monotonic();
  const signal = new AbortController().signal;
  const request = { session: SESSION, text: 'do it', deadlineMs: startMs + 60_000, signal, onText: () => {} };
  const client = createClient({ key: 'first', api }, () => Promise.resolve(undefined));
  const result = await resumeTurn(prompt, request, { api: client, clock });
  expect([result.outcome.kind, result.text, clock.monotonic()]).toEqual(['completed', 'done', startMs]);
  expect(api.prompts).toEqual([]);
});

describe('a turn', () => {
  test('subscribes before it sends, with an id that follows the newest message', async () => {
    const api = new FakeApi();
    api.store.push({
      info: { id: 'msg_00000000000fold0', role: 'assistant', parentID: 'msg_x', time: { created: 1, completed: 2 } },
      parts: [],
    });
    let subscribedFirst = false;
    api.onPrompt = (prompt) => {
      subscribedFirst = api.subscriptions === 1;
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    const { result, shown } = await run(api);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect(shown).toBe('done');
    expect(subscribedFirst).toBe(true);
    expect(api.prompts[0]?.messageId).toMatch(/^msg_000000000010[0-9A-Za-z]{14}$/);
    expect(api.prompts[0]?.partId).toMatch(/^prt_[0-9a-f]{12}[0-9A-Za-z]{14}$/);
  });

  test("in an empty session its id comes from the session's creation, not from our clock", async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    await run(api, {}, leapingClock(9_999_999_999_999));
    const expected = (BigInt(SESSION.time.created) * 4096n + 1n).toString(16).padStart(12, '0');
    expect(api.prompts[0]?.messageId.slice(4, 16)).toBe(expected);
  });

  test('sends nothing to a busy session', async () => {
    const api = new FakeApi();
    api.status = { type: 'busy' };
    const { result } = await run(api);
    expect(result.outcome.kind).toBe('busy');
    expect(api.prompts).toHaveLength(0);
  });

  test("somebody's message that was just accepted counts as starting: nothing is sent once it is busy", async () => {
    const api = new FakeApi();
    api.store.push({ info: { id: 'msg_000000000001theirs', role: 'user', time: { created: 1 } }, parts: [] });
    let asked = 0;
    api.onStatuses = () => {
      asked += 1;
      if (asked === 3) api.status = { type: 'busy' };
    };
    const { result } = await run(api);
    expect(result.outcome.kind).toBe('busy');
    expect(api.prompts).toHaveLength(0);
  });

  test("somebody's message that nothing ever answered does not block for ever", async () => {
    const api = new FakeApi();
    api.store.push({ info: { id: 'msg_000000000001theirs', role: 'user', time: { created: 1 } }, parts: [] });
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    expect((await run(api)).result.outcome.kind).toBe('completed');
  });

  test('a session that another process works on is busy, and the owner is named', async () => {
    const api = new FakeApi();
    api.store.push({
      info: { id: 'msg_000000000001a', role: 'assistant', parentID: 'msg_x', time: { created: 1 } },
      parts: [],
    });
    const { result } = await run(api, { findOtherProcess: () => Promise.resolve('runs in twin') });
    expect(result.outcome).toEqual({ kind: 'busy', reason: 'runs in twin' });
    expect(api.prompts).toHaveLength(0);
  });
});

describe('in a flood of events', () => {
  test('during a read of the store: dropped events are recovered from the store', async () => {
    const api = new FakeApi();
    const answer = Array.from({ length: 20_000 }, (_, index) => `${index} `);
    let isFlooding = false;
    const read = api.messages.bind(api);
    // Longer than reading all events takes.
    api.messages = async (...args) => {
      await nextTurn();
      return await read(...args);
    };
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      const id = successorOf(prompt.messageId);
      api.begin(prompt.messageId, id);
      const partID = `prt_${id}`;
      api.emit('message.part.updated', { part: { id: partID, messageID: id, type: 'text', text: '' } });
      const delta = (text: string): void =>
        api.emit('message.part.delta', { messageID: id, partID, field: 'text', delta: text });
      // A false idle makes the follower read the store; meanwhile all events arrive.
      api.onStatuses = () => {
        if (isFlooding) return;
        isFlooding = true;
        for (const text of answer.slice(1)) delta(text);
        void nextTurn()
          .then(nextTurn)
          .then(() => {
            api.finish(id, answer.join(''));
            api.setStatus({ type: 'idle' });
          });
      };
      delta(answer[0] ?? '');
      api.emit('session.idle', {});
    };
    const { result, shown } = await run(api);
    expect(isFlooding).toBe(true);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, textPending: false });
    expect(result.text).toBe(answer.join(''));
    expect(shown).toBe(answer.join(''));
  });
});

describe('in doubt', () => {
  test('a prompt whose response was lost after it was accepted is not sent again', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      setImmediate(() => api.answer(prompt.messageId, 'done'));
      lost();
    };
    const { result } = await run(api);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect(api.prompts).toHaveLength(1);
  });

  test('a prompt that was cut before it arrived is sent again, identical', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      if (api.prompts.length === 1) lost();
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    const { result } = await run(api);
    expect(result.outcome.kind).toBe('completed');
    expect(api.prompts).toHaveLength(2);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
  });

  test('nothing is sent again once the event stream broke: another process may answer there', async () => {
    const api = new FakeApi();
    api.onPrompt = () => {
      api.breakStreams();
      lost();
    };
    const { result } = await run(api);
    expect(result.outcome.kind).toBe('unknown');
    expect(api.prompts).toHaveLength(1);
  });

  test('but is with a generation that takes the same prompt only once', async () => {
    const late = (): never => {
      throw new RequestError('status', 'POST: HTTP 504', { status: 504 });
    };
    for (const doubt of [lost, late]) {
      const api = new FakeApi();
      api.isIdempotent = true;
      api.onPrompt = (prompt) => {
        if (api.prompts.length < 3) {
          api.breakStreams();
          doubt();
        }
        api.accept(prompt);
        api.answer(prompt.messageId, 'once');
      };
      const { result } = await run(api);
      expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'once' });
      expect(new Set(api.prompts.map((prompt) => JSON.stringify(prompt))).size).toBe(1);
      expect(api.prompts).toHaveLength(3);
    }
  });

  test('and is not with that one either once the session was interrupted, since that would wake it', async () => {
    const api = new FakeApi();
    api.isIdempotent = true;
    api.onPrompt = () => {
      api.emit('session.idle', { outcome: 'interrupted' });
      lost();
    };
    const { result } = await run(api);
    expect(result.outcome).toMatchObject({ kind: 'unknown', reason: expect.stringContaining('interrupted') as string });
    expect(api.prompts).toHaveLength(1);
  });

  test.each([500, 502, 504, 520])(
    'after a %d it is looked for, not sent again, and unknown in the end',
    async (status) => {
      const api = new FakeApi();
      api.onPrompt = () => {
        throw new RequestError('status', `POST: HTTP ${status}`, { status });
      };
      const { result } = await run(api);
      expect(result.outcome).toMatchObject({ kind: 'unknown', reason: expect.stringContaining(`${status}`) as string });
      expect(api.prompts).toHaveLength(1);
    },
  );

  test.each([300, 1_000, 4_000])(
    'a gateway that gave up and passes the prompt on %d ms later: the turn is followed',
    async (ms) => {
      const api = new FakeApi();
      const clock = leapingClock();
      api.onPrompt = (prompt) => {
        void clock.sleep(ms).then(() => {
          api.accept(prompt);
          api.answer(prompt.messageId, 'late');
        });
        throw new RequestError('status', 'POST: HTTP 504', { status: 504 });
      };
      const { result } = await run(api, {}, clock);
      expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'late' });
      expect(api.prompts).toHaveLength(1);
    },
  );

  test('an error answer of its own is a refusal, and nothing is sent again', async () => {
    const api = new FakeApi();
    api.onPrompt = () => {
      throw new RequestError('status', 'POST: HTTP 400 (unknown model)', { status: 400 });
    };
    const { result } = await run(api);
    expect(result.outcome).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('unknown model') as string,
    });
    expect(api.prompts).toHaveLength(1);
  });

  test('a server that never connected got nothing', async () => {
    const api = new FakeApi();
    api.onPrompt = () => {
      throw new RequestError('unreachable', 'POST: ECONNREFUSED');
    };
    expect((await run(api)).result.outcome.kind).toBe('refused');
  });

  test('a prompt that a proxy refuses is refused at once, with its reason', async () => {
    const api = new FakeApi();
    api.onPrompt = () => {
      throw new RequestError('unreachable', 'POST: your role is "read"', { status: 403 });
    };
    const { result } = await run(api);
    expect(result.outcome).toEqual({ kind: 'refused', reason: 'POST: your role is "read"' });
    expect(api.prompts).toHaveLength(1);
  });

  test('accepted, idle and without an answer past the start window: the identical prompt once more', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      if (api.prompts.length === 2) api.answer(prompt.messageId, 'at last');
    };
    const { result } = await run(api);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'at last' });
    expect(api.prompts).toHaveLength(2);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
  });

  test('taken up, idle and without an answer: over at once with a generation that stores what it takes up', async () => {
    const api = new FakeApi();
    api.isIdempotent = true;
    const clock = leapingClock();
    const { result } = await run(api, {}, clock);
    expect(result.outcome).toMatchObject({
      kind: 'interrupted',
      reason: expect.stringContaining('interrupted') as string,
    });
    expect(api.prompts).toHaveLength(1);
  });

  test('never begun even then: interrupted, and sent no more than twice', async () => {
    const api = new FakeApi();
    const { result } = await run(api);
    expect(result.outcome.kind).toBe('interrupted');
    expect(api.prompts).toHaveLength(2);
  });
});

describe('a call that is over', () => {
  const ends: readonly (readonly [string, (caller: AbortController) => number])[] = [
    ['cancelled', (caller) => (caller.abort(), Number.POSITIVE_INFINITY)],
    ['expired', () => 0],
  ];

  /** A turn whose call expires, or is cancelled, as soon as `end` is called. */
  function ending([, over]: (typeof ends)[number]) {
    const caller = new AbortController();
    const ticking = leapingClock();
    let nowMs: number | undefined;
    const clock = { ...ticking, monotonic: () => nowMs ?? ticking.monotonic() };
    const deadlineMs = clock.monotonic() + 60_000;
    const end = (): void => {
      if (over(caller) === 0) nowMs = deadlineMs;
    };
    return { end, clock, options: { signal: caller.signal, deadlineMs } };
  }

  test.each(ends)('%s while the status is slow: nothing is sent', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.onStatuses = end;
    await expect(run(api, options, clock)).rejects.toThrow(/^the (call was cancelled|time for this call ran out)$/);
    expect(api.prompts).toEqual([]);
  });

  test('cancelled while the status hangs: it does not wait for it', async () => {
    const api = new FakeApi();
    const caller = new AbortController();
    api.statuses = () => {
      caller.abort();
      return new Promise(() => {});
    };
    await expect(run(api, { signal: caller.signal })).rejects.toThrow(CallOver);
    expect(api.prompts).toEqual([]);
  });

  test.each(ends)('%s before the status failed: the error is that the call is over', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.onStatuses = () => {
      end();
      throw new RequestError('timeout', 'GET /session/status: no complete answer');
    };
    await expect(run(api, options, clock)).rejects.toThrow(CallOver);
  });

  test.each(ends)('%s while its request id is kept: nothing is sent', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    const beforeSend = (): Promise<void> => Promise.resolve(end());
    await expect(run(api, { ...options, beforeSend }, clock)).rejects.toThrow(CallOver);
    expect(api.prompts).toEqual([]);
  });

  test.each(ends)('%s before its request id is kept: it is not kept', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.onStatuses = end;
    let written = 0;
    const beforeSend = (): Promise<void> => Promise.resolve(void (written += 1));
    await expect(run(api, { ...options, beforeSend }, clock)).rejects.toThrow(CallOver);
    expect(written).toBe(0);
  });

  test.each(ends)("%s while somebody's message is about to start: nothing is sent", async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.store.push({ info: { id: 'msg_000000000001theirs', role: 'user', time: { created: 1 } }, parts: [] });
    let asked = 0;
    api.onStatuses = () => {
      asked += 1;
      if (asked === 2) end();
      // Its time stands still from then on.
      if (asked > 5) throw new Error('it is asked again and again');
    };
    await expect(run(api, options, clock)).rejects.toThrow(CallOver);
    expect([asked, api.prompts]).toEqual([2, []]);
  });

  test.each(ends)('%s after a first attempt that never connected: nothing is sent', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.onPrompt = () => {
      end();
      throw new RequestError('unreachable', 'POST: ECONNREFUSED');
    };
    await expect(run(api, options, clock)).rejects.toThrow(CallOver);
    // It does not begin again either.
    expect([api.prompts.length, api.subscriptions]).toEqual([1, 1]);
  });

  test.each(ends)('%s before it begins over another endpoint: nothing is sent', async (...how) => {
    const { end, clock, options } = ending(how);
    const [api, other] = [new FakeApi(), new FakeApi()];
    api.onPrompt = () => {
      throw new RequestError('unreachable', 'POST: ECONNREFUSED');
    };
    other.onStatuses = end;
    const turn = run(api, options, clock, () => Promise.resolve({ key: 'other', api: other }));
    await expect(turn).rejects.toThrow(CallOver);
    expect(other.prompts).toEqual([]);
  });

  test.each(ends)(
    '%s in doubt: nothing is sent again, and the result says that it may have arrived',
    async (...how) => {
      const { end, clock, options } = ending(how);
      const api = new FakeApi();
      api.onPrompt = lost;
      api.message = () => {
        end();
        return Promise.resolve(undefined);
      };
      const { result } = await run(api, options, clock);
      expect(result.outcome).toMatchObject({ kind: 'unknown', reason: expect.stringContaining('hang up') as string });
      expect(api.prompts).toHaveLength(1);
    },
  );

  test.each(ends)('%s in doubt with an unreadable store: the store is not read again', async (...how) => {
    const { end, clock, options } = ending(how);
    const api = new FakeApi();
    api.onPrompt = lost;
    let looks = 0;
    api.message = () => {
      looks += 1;
      end();
      return Promise.reject(new RequestError('timeout', 'GET /message: no complete answer'));
    };
    expect((await run(api, options, clock)).result.outcome.kind).toBe('unknown');
    expect([api.prompts.length, looks]).toEqual([1, 1]);
  });

  test('expired with an accepted message that has not begun: not sent again, and reported as running', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    // The wait before such a message is sent again.
    const { result } = await run(api, { deadlineMs: clock.monotonic() + 20_000 }, clock);
    expect([result.outcome.kind, api.prompts.length]).toEqual(['running', 1]);
  });
});

describe('a turn ends', () => {
  test('failed, with what the model said, once the message is complete after the early idle', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      api.setStatus({ type: 'idle' });
      setImmediate(() => api.finish(id, '', { error: { name: 'APIError', data: { message: 'no credit' } } }));
    };
    expect((await run(api)).result.outcome).toEqual({ kind: 'failed', reason: 'opencode says "APIError: no credit"' });
  });

  const error = (name: string, message: string) => ({ error: { name, data: { message } } });

  test('failed at once, with an error that is not in the store', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    const startMs = clock.now();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.emit('session.error', error('UnknownError', 'Model not found: a/b.\n    at loop (chunk.js:1:2)\n'));
    };
    const { result } = await run(api, {}, clock);
    expect(result.outcome).toEqual({ kind: 'failed', reason: 'opencode says "UnknownError: Model not found: a/b."' });
    expect([clock.now() - startMs, api.prompts.length]).toEqual([0, 1]);
  });

  test.each([
    ['that it goes on after', 'UnknownError', 'Read tool failed'],
    ['that a compaction mends', 'ContextOverflowError', 'too long'],
  ])('whole, in spite of an error %s', async (_, name, message) => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.emit('session.error', error(name, message));
      setImmediate(() => api.answer(prompt.messageId, 'done'));
    };
    expect((await run(api)).result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });

  test("whole, in spite of another session's error", async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.emit('session.error', { sessionID: 'ses_other', ...error('UnknownError', 'not ours') });
      setImmediate(() => api.answer(prompt.messageId, 'done'));
    };
    expect((await run(api)).result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });

  test('aborted, when somebody aborts it', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.begin(prompt.messageId, id);
      api.finish(id, 'so far', { error: { name: 'MessageAbortedError', data: { message: 'aborted' } } });
      api.setStatus({ type: 'idle' });
    };
    expect((await run(api)).result).toMatchObject({ outcome: { kind: 'aborted' }, text: 'so far' });
  });

  test('aborted, when it was stopped between two attempts of a failing model, which leaves no error', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.begin(prompt.messageId, id);
      api.setStatus({ type: 'retry', attempt: 1, message: 'overloaded' });
      api.finish(id, '', {});
      api.setStatus({ type: 'idle' });
    };
    expect((await run(api)).result.outcome).toEqual({ kind: 'aborted' });
  });

  test('whole, on a cold instance that stores the accepted message seconds later', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.onPrompt = (prompt) => {
      void clock.sleep(8_000).then(() => {
        api.accept(prompt);
        api.answer(prompt.messageId, 'warm now');
      });
    };
    const { result } = await run(api, {}, clock);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'warm now' });
    expect(api.prompts).toHaveLength(1);
  });

  test('interrupted, when its process is gone and the new one has it incomplete and idle', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, successorOf(prompt.messageId));
      api.status = { type: 'idle' };
      setImmediate(() => api.breakStreams());
    };
    expect((await run(api)).result.outcome.kind).toBe('interrupted');
  });

  test('unknown, when the stream cannot be opened again', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, successorOf(prompt.messageId));
      api.onEvents = () => {
        throw new RequestError('unreachable', 'GET /event: ECONNREFUSED');
      };
      api.onStatuses = api.onEvents;
      setImmediate(() => api.breakStreams());
    };
    expect((await run(api)).result.outcome).toMatchObject({
      kind: 'unknown',
      reason: expect.stringContaining('ECONNREFUSED') as string,
    });
  });

  test('by its events if the store can no longer be read', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.messages = () => Promise.reject(new RequestError('too-large', 'GET /session/x/message: larger than'));
      api.answer(prompt.messageId, 'all of it');
    };
    const { result, shown } = await run(api);
    expect([result.outcome.kind, result.text, shown]).toEqual(['completed', 'all of it', 'all of it']);
  });

  test('running, at the deadline, with the text so far and what the model is retrying', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, successorOf(prompt.messageId));
      api.setStatus({ type: 'retry', attempt: 3, message: 'overloaded' });
    };
    const { result } = await run(api);
    expect(result.outcome).toEqual({ kind: 'running', retrying: { attempt: 3, message: 'overloaded' } });
  });

  test('cancelled, without touching the run', async () => {
    const api = new FakeApi();
    const caller = new AbortController();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, successorOf(prompt.messageId));
      setImmediate(() => caller.abort());
    };
    let aborts = 0;
    api.abort = () => Promise.resolve(void (aborts += 1));
    expect((await run(api, { signal: caller.signal })).result.outcome.kind).toBe('cancelled');
    expect(aborts).toBe(0);
  });

  test('whole, when its idle event was lost in a gap of the stream', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      api.emit('message.part.updated', { part: { id: `prt_${id}`, messageID: id, type: 'text', text: '' } });
      api.emit('message.part.delta', { messageID: id, partID: `prt_${id}`, field: 'text', delta: 'half ' });
      setImmediate(() => {
        api.breakStreams();
        api.finish(id, 'half and half');
        api.status = { type: 'idle' };
      });
    };
    const { result, shown } = await run(api);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'half and half' });
    expect(shown).toBe('half and half');
  });
});

describe('without an event stream through a proxy', () => {
  const refusals = [
    new RequestError('status', 'GET /event: HTTP 403', { status: 403 }),
    new RequestError('status', 'GET /event: HTTP 404', { status: 404 }),
    new RequestError('status', 'GET /event: HTTP 405', { status: 405 }),
    new RequestError('status', 'GET /event: HTTP 502', { status: 502 }),
    new RequestError('malformed', 'GET /event: answered "text/html"'),
    new RequestError('timeout', 'GET /event: no complete answer within 10000 ms'),
    new RequestError('broken', 'GET /event: socket hang up'),
  ].map((error) => [error.message, error] as const);

  /** What requests for `/event` get from now on. */
  const refuse = (api: FakeApi, error: RequestError): void => {
    api.onEvents = () => {
      throw error;
    };
  };

  test.each(refusals)('store and status are read: %s', async (_, error) => {
    const api = new FakeApi();
    refuse(api, error);
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    const { result, shown } = await run(api);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect([shown, api.prompts.length]).toEqual(['done', 1]);
  });

  test('a request for permission is found', async () => {
    const api = new FakeApi();
    refuse(api, new RequestError('status', 'GET /event: HTTP 502', { status: 502 }));
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.status = { type: 'busy' };
      const id = successorOf(prompt.messageId);
      api.begin(prompt.messageId, id);
      api.permissionList.push({
        id: 'per_1',
        sessionID: SESSION.id,
        permission: 'bash',
        patterns: [],
        always: [],
        tool: { messageID: id },
      });
    };
    expect((await run(api)).result.outcome.kind).toBe('waiting');
  });

  test('a prompt in doubt is not sent again: another process may answer by now', async () => {
    const api = new FakeApi();
    refuse(api, new RequestError('malformed', 'GET /event: answered "text/html"'));
    api.onPrompt = lost;
    expect((await run(api)).result.outcome.kind).toBe('unknown');
    expect(api.prompts).toHaveLength(1);
  });

  test.each(refusals)('any more, in the middle of a turn: %s', async (_, error) => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.status = { type: 'busy' };
      const id = successorOf(prompt.messageId);
      api.begin(prompt.messageId, id);
      refuse(api, error);
      setImmediate(() => api.breakStreams());
      // Longer than a stream is reopened.
      void clock.sleep(30_000).then(() => {
        api.finish(id, 'done');
        api.status = { type: 'idle' };
      });
    };
    const { result } = await run(api, {}, clock);
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });

  test('but what is unreachable or locked is an error, and nothing is sent', async () => {
    for (const kind of ['unreachable', 'locked'] as const) {
      const api = new FakeApi();
      refuse(api, new RequestError(kind, 'GET /event: no'));
      await expect(run(api)).rejects.toThrow('GET /event: no');
      expect(api.prompts).toEqual([]);
    }
  });
});

describe('a turn whose endpoint fails for good', () => {
  const gone = (): never => {
    throw new RequestError('unreachable', 'GET /event: ECONNREFUSED');
  };

  /** The same process over another endpoint. */
  function otherEndpointTo(api: FakeApi): FakeApi {
    const other = new FakeApi();
    Object.defineProperty(other, 'store', { value: api.store });
    return other;
  }

  function cut(api: FakeApi): void {
    api.onEvents = gone;
    api.onStatuses = gone;
    api.messages = () => Promise.reject(new RequestError('unreachable', 'GET /message: ECONNREFUSED'));
    api.message = () => Promise.reject(new RequestError('unreachable', 'GET /message: ECONNREFUSED'));
    api.breakStreams();
  }

  test('goes on over another as soon as there is one, with the whole text and without sending again', async () => {
    const api = new FakeApi();
    const other = otherEndpointTo(api);
    let id = '';
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      api.emit('message.part.updated', { part: { id: `prt_${id}`, messageID: id, type: 'text', text: '' } });
      api.emit('message.part.delta', { messageID: id, partID: `prt_${id}`, field: 'text', delta: 'one ' });
      setImmediate(() => cut(api));
    };
    other.status = { type: 'busy' };
    other.onEvents = () => {
      setImmediate(() =>
        setImmediate(() => {
          other.finish(id, 'one two');
          other.setStatus({ type: 'idle' });
        }),
      );
    };
    let asked = 0;
    const { result, shown } = await run(api, {}, leapingClock(), () => {
      asked += 1;
      return Promise.resolve(asked < 3 ? undefined : { key: 'other', api: other });
    });
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'one two' });
    expect([shown, asked, api.prompts.length, other.prompts.length]).toEqual(['one two', 3, 1, 0]);
  });

  test('in doubt whether the prompt arrived: looks for it over the other', async () => {
    const api = new FakeApi();
    const other = otherEndpointTo(api);
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      cut(api);
      lost();
    };
    other.onEvents = () => setImmediate(() => other.answer(api.prompts[0]?.messageId ?? '', 'done'));
    const { result } = await run(api, {}, leapingClock(), () => Promise.resolve({ key: 'other', api: other }));
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect([api.prompts.length, other.prompts.length]).toEqual([1, 0]);
  });

  test('a prompt that did not arrive is never sent over the other', async () => {
    const api = new FakeApi();
    const other = otherEndpointTo(api);
    api.onPrompt = () => {
      cut(api);
      lost();
    };
    const { result } = await run(api, {}, leapingClock(), () => Promise.resolve({ key: 'other', api: other }));
    expect(result.outcome.kind).toBe('unknown');
    expect(other.prompts).toEqual([]);
  });

  test("a prompt that the other endpoint does not show is sent again over the stream's, if that is open", async () => {
    const api = new FakeApi();
    const other = otherEndpointTo(api);
    api.onPrompt = (prompt) => {
      if (api.prompts.length === 1) lost();
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    api.message = () => Promise.reject(new RequestError('broken', 'GET /message: ECONNRESET'));
    const { result } = await run(api, {}, leapingClock(), () => Promise.resolve({ key: 'other', api: other }));
    expect([api.prompts.length, other.prompts.length]).toEqual([2, 0]);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
    expect(result.outcome.kind).not.toBe('unknown');
  });

  test('before anything was sent: begins again over the other, after its newest message', async () => {
    const api = new FakeApi();
    const other = otherEndpointTo(api);
    api.onPrompt = () => {
      cut(api);
      gone();
    };
    other.onPrompt = (prompt) => {
      other.accept(prompt);
      other.answer(prompt.messageId, 'done');
    };
    const { result, shown } = await run(api, {}, leapingClock(), () => Promise.resolve({ key: 'other', api: other }));
    expect([result.outcome.kind, shown, other.prompts.length]).toEqual(['completed', 'done', 1]);
  });

  test('before anything was sent, over all of them: refused', async () => {
    const [api, other] = [new FakeApi(), new FakeApi()];
    for (const one of [api, other]) one.onPrompt = gone;
    const endpoints = [
      { key: 'first', api },
      { key: 'other', api: other },
    ];
    const { result } = await run(api, {}, leapingClock(), (failed) =>
      Promise.resolve(endpoints.find(({ key }) => !failed.includes(key))),
    );
    expect(result.outcome.kind).toBe('refused');
  });

  test('after the stream broke before anything was sent: status and messages are read again', async () => {
    const api = new FakeApi();
    api.onStatuses = () => {
      if (api.subscriptions > 1) return;
      api.breakStreams();
      // Another message came first.
      setImmediate(() => setImmediate(() => (api.status = { type: 'busy' })));
    };
    const messages = api.messages.bind(api);
    api.messages = async (id, query) => {
      await new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(resolve))));
      return messages(id, query);
    };
    const { result } = await run(api);
    expect([result.outcome.kind, api.prompts.length]).toEqual(['busy', 0]);
  });

  test('the first endpoint is kept if it returns by itself', async () => {
    const api = new FakeApi();
    let asked = 0;
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      setImmediate(() => {
        api.breakStreams();
        api.answer(prompt.messageId, 'done');
      });
    };
    const { result } = await run(api, {}, leapingClock(), () => Promise.resolve(void (asked += 1)));
    expect([result.text, asked]).toEqual(['done', 0]);
  });
});

describe('a turn whose stream breaks in the middle of a part', () => {
  test('holds that part back until it ends', async () => {
    const api = new FakeApi();
    const delta = (id: string, text: string): void =>
      api.emit('message.part.delta', { messageID: id, partID: `prt_${id}`, field: 'text', delta: text });
    let id = '';
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      api.emit('message.part.updated', { part: { id: `prt_${id}`, messageID: id, type: 'text', text: '' } });
      delta(id, 'one ');
      setImmediate(() => api.breakStreams());
    };
    api.onEvents = () => {
      if (api.subscriptions !== 2) return;
      // "two " was missed while the stream was down.
      setImmediate(() =>
        setImmediate(() => {
          delta(id, 'three');
          api.finish(id, 'one two three');
          api.setStatus({ type: 'idle' });
        }),
      );
    };
    const { result, shown } = await run(api);
    expect(shown).toBe('one two three');
    expect(result).toMatchObject({ outcome: { kind: 'completed' }, text: 'one two three' });
  });
});

describe('a long turn', () => {
  test('is not read from its beginning at each check', async () => {
    const api = new FakeApi();
    const pages: number[] = [];
    const read = api.messages.bind(api);
    api.messages = async (id, query) => {
      const page = await read(id, query);
      pages.push(page.messages.length);
      return page;
    };
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      let id = prompt.messageId;
      for (let step = 0; step < 120; step += 1) {
        id = successorOf(id);
        api.begin(prompt.messageId, id);
        api.finish(id, `${step}`, { finish: 'tool-calls' });
      }
    };
    const clock = leapingClock();
    const { result } = await run(api, { deadlineMs: clock.monotonic() + 30_000 }, clock);
    expect(result.text.split('\n\n')).toHaveLength(120);
    // All of it once, then only the newest.
    const whole = pages.indexOf(50);
    expect(pages.slice(whole, whole + 3)).toEqual([50, 50, 21]);
    expect(new Set(pages.slice(whole + 3))).toEqual(new Set([4]));
  });
});

describe('a turn that stops for an answer', () => {
  const permission = (sessionID: string, messageID: string) => ({
    id: 'per_1',
    sessionID,
    permission: 'bash',
    patterns: ['rm -rf build'],
    always: [],
    tool: { messageID },
  });

  test('returns with the request at once', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      api.emit('permission.asked', permission(SESSION.id, id));
    };
    expect((await run(api)).result.outcome).toMatchObject({ kind: 'waiting', waiting: { request: { id: 'per_1' } } });
  });

  test("returns with a sub-agent's request whose session started before the stream", async () => {
    const api = new FakeApi();
    api.sessionList.push(
      { ...SESSION, id: 'ses_child', parentID: SESSION.id },
      { ...SESSION, id: 'ses_grandchild', parentID: 'ses_child' },
    );
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, successorOf(prompt.messageId));
      api.emit('permission.asked', permission('ses_grandchild', 'msg_child'));
    };
    expect((await run(api)).result.outcome.kind).toBe('waiting');
  });

  test("goes on past another session's request", async () => {
    const api = new FakeApi();
    api.sessionList.push({ ...SESSION, id: 'ses_other' });
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.emit('permission.asked', permission('ses_other', 'msg_other'));
      api.answer(prompt.messageId, 'done');
    };
    expect((await run(api)).result.outcome.kind).toBe('completed');
  });

  test('finds a request that was announced in a gap, and leaves one that an abort left behind', async () => {
    const api = new FakeApi();
    api.permissionList.push({ ...permission(SESSION.id, 'msg_earlier'), id: 'per_stale' });
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      const id = successorOf(prompt.messageId);
      api.setStatus({ type: 'busy' });
      api.begin(prompt.messageId, id);
      setImmediate(() => {
        api.breakStreams();
        api.permissionList.push({ ...permission(SESSION.id, id), id: 'per_new' });
      });
    };
    expect((await run(api)).result.outcome).toMatchObject({ kind: 'waiting', waiting: { request: { id: 'per_new' } } });
  });
});
