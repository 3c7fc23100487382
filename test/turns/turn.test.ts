import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { NextEndpoint } from '../../src/opencode/client.ts';
import { RequestError } from '../../src/http/exchange.ts';
import { CallOver } from '../../src/turns/call-limit.ts';
import type { TurnResult } from '../../src/turns/outcome.ts';
import { resumeTurn, runTurn, type TurnRequest } from '../../src/turns/turn.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { FakeApi, permission, SESSION, successorOf } from './fake-api.ts';

const BROKEN = new RequestError('broken', 'POST: socket hang up');
const UNREACHABLE = new RequestError('unreachable', 'POST: ECONNREFUSED');
const TIMEOUT = new RequestError('timeout', 'GET: no complete answer');
const status = (code: number): RequestError => new RequestError('status', `POST: HTTP ${code}`, { status: code });
const throwing =
  (error: Error, first: () => void = () => {}) =>
  (): never => {
    first();
    throw error;
  };

type Options = Partial<TurnRequest> & {
  readonly clock?: ReturnType<typeof leapingClock>;
  readonly next?: NextEndpoint;
};

async function run(
  api: FakeApi,
  { clock = leapingClock(), next, ...options }: Options = {},
): Promise<TurnResult & { readonly shown: string }> {
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
    { api: api.client(next), clock },
  );
  return { ...result, shown };
}

/** Adds a message of another caller, without an answer. */
function addUnanswered(api: FakeApi): void {
  api.store.push({ info: { id: 'msg_000000000001other', role: 'user', time: { created: 1 } }, parts: [] });
}

test('a finished turn of an earlier call is reported at once', async () => {
  const api = new FakeApi();
  const prompt = { sessionId: SESSION.id, messageId: 'msg_000000000010abc', partId: 'prt_a', text: 'do it' };
  api.accept(prompt);
  api.answer(prompt.messageId, 'done');
  const clock = leapingClock();
  const startMs = clock.monotonic();
  const signal = new AbortController().signal;
  const request = { session: SESSION, text: 'do it', deadlineMs: startMs + 60_000, signal, onText: () => {} };
  const result = await resumeTurn(prompt, request, { api: api.client(), clock });
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
    let subscriptions = 0;
    api.onPrompt = (prompt) => {
      ({ subscriptions } = api);
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'done', shown: 'done' });
    expect(subscriptions).toBe(1);
    expect(api.prompts[0]?.messageId).toMatch(/^msg_000000000010[0-9A-Za-z]{14}$/);
    expect(api.prompts[0]?.partId).toMatch(/^prt_[0-9a-f]{12}[0-9A-Za-z]{14}$/);
  });

  test('takes its id from the creation of an empty session, not from our clock', async () => {
    const api = new FakeApi();
    api.answerWith('done');
    await run(api, { clock: leapingClock(9_999_999_999_999) });
    const expected = (BigInt(SESSION.time.created) * 4096n + 1n).toString(16).padStart(12, '0');
    expect(api.prompts[0]?.messageId.slice(4, 16)).toBe(expected);
  });

  test('is not begun if a message that was just accepted makes the session busy', async () => {
    const api = new FakeApi();
    addUnanswered(api);
    let requests = 0;
    api.onStatuses = () => {
      requests += 1;
      if (requests === 3) api.status = { type: 'busy' };
    };
    expect((await run(api)).outcome.kind).toBe('busy');
    expect(api.prompts).toHaveLength(0);
  });

  test('is not blocked for ever by a message that is never answered', async () => {
    const api = new FakeApi();
    addUnanswered(api);
    api.answerWith('done');
    expect((await run(api)).outcome.kind).toBe('completed');
  });

  test('is not begun in a session that another process works on; the result names that process', async () => {
    const api = new FakeApi();
    api.begin('msg_x', 'msg_000000000001a');
    const { outcome } = await run(api, { findOtherProcess: () => Promise.resolve('runs in twin') });
    expect(outcome).toEqual({ kind: 'busy', reason: 'runs in twin' });
    expect(api.prompts).toHaveLength(0);
  });

  test('reads from the store the events that were dropped in a flood', async () => {
    const api = new FakeApi();
    const answer = Array.from({ length: 20_000 }, (_, index) => `${index} `);
    let isFlooding = false;
    const read = api.messages.bind(api);
    // This read takes longer than reading all events.
    api.messages = async (...args) => {
      await nextTurn();
      return await read(...args);
    };
    api.workOnPrompt((id) => {
      api.beginText(id);
      // A false idle makes the follower read the store; meanwhile all events arrive.
      api.onStatuses = () => {
        if (isFlooding) return;
        isFlooding = true;
        for (const text of answer.slice(1)) api.addText(id, text);
        void nextTurn()
          .then(nextTurn)
          .then(() => {
            api.finish(id, answer.join(''));
            api.setStatus({ type: 'idle' });
          });
      };
      api.addText(id, answer[0] ?? '');
      api.emit('session.idle', {});
    });
    const text = answer.join('');
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, textPending: false, text, shown: text });
    expect(isFlooding).toBe(true);
  });

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
    const { text } = await run(api, { deadlineMs: clock.monotonic() + 30_000, clock });
    expect(text.split('\n\n')).toHaveLength(120);
    // The whole turn is read once, then only its newest messages.
    const whole = pages.indexOf(50);
    expect(pages.slice(whole, whole + 3)).toEqual([50, 50, 21]);
    expect(new Set(pages.slice(whole + 3))).toEqual(new Set([4]));
  });
});

describe('a prompt in doubt', () => {
  test('is not sent again if it was accepted and only the response was lost', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      setImmediate(() => api.answer(prompt.messageId, 'done'));
      throw BROKEN;
    };
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect(api.prompts).toHaveLength(1);
  });

  test('is sent again, identical, if it was cut before it arrived', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      if (api.prompts.length === 1) throw BROKEN;
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    expect((await run(api)).outcome.kind).toBe('completed');
    expect(api.prompts).toHaveLength(2);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
  });

  test('is not sent again once the event stream broke: another process may answer there', async () => {
    const api = new FakeApi();
    api.failPrompts(BROKEN, () => api.breakStreams());
    expect((await run(api)).outcome.kind).toBe('unknown');
    expect(api.prompts).toHaveLength(1);
  });

  test.each([BROKEN, status(504)])(
    'is always sent again if opencode runs the same prompt only once: $message',
    async (error) => {
      const api = new FakeApi();
      api.isIdempotent = true;
      api.onPrompt = (prompt) => {
        if (api.prompts.length < 3) {
          api.breakStreams();
          throw error;
        }
        api.accept(prompt);
        api.answer(prompt.messageId, 'once');
      };
      expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'once' });
      expect(new Set(api.prompts.map((prompt) => JSON.stringify(prompt))).size).toBe(1);
      expect(api.prompts).toHaveLength(3);
    },
  );

  test('is not sent again to an interrupted session, since that would wake it', async () => {
    const api = new FakeApi();
    api.isIdempotent = true;
    api.failPrompts(BROKEN, () => api.emit('session.idle', { outcome: 'interrupted' }));
    expect((await run(api)).outcome).toMatchObject({
      kind: 'unknown',
      reason: expect.stringContaining('interrupted') as string,
    });
    expect(api.prompts).toHaveLength(1);
  });

  test.each([300, 1_000, 4_000])('is followed if a gateway that timed out passes it on %d ms later', async (ms) => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.onPrompt = (prompt) => {
      void clock.sleep(ms).then(() => {
        api.accept(prompt);
        api.answer(prompt.messageId, 'late');
      });
      throw status(504);
    };
    expect(await run(api, { clock })).toMatchObject({ outcome: { kind: 'completed' }, text: 'late' });
    expect(api.prompts).toHaveLength(1);
  });

  test.each([
    ...[500, 502, 504, 520].map((code) => ({ kind: 'unknown', error: status(code) })),
    { kind: 'refused', error: status(400) },
    { kind: 'refused', error: new RequestError('unreachable', 'POST: your role is "read"', { status: 403 }) },
  ])('is $kind, and not sent again, after $error.message', async ({ kind, error }) => {
    const api = new FakeApi();
    api.failPrompts(error);
    expect((await run(api)).outcome).toEqual({ kind, reason: error.message });
    expect(api.prompts).toHaveLength(1);
  });

  test('is not sent again while its message cannot be read', async () => {
    const api = new FakeApi();
    api.message = throwing(TIMEOUT);
    api.failPrompts(BROKEN);
    expect((await run(api)).outcome).toEqual({ kind: 'unknown', reason: BROKEN.message });
    expect(api.prompts).toHaveLength(1);
  });

  test('is refused if the server never accepted a connection', async () => {
    const api = new FakeApi();
    api.failPrompts(UNREACHABLE);
    expect((await run(api)).outcome.kind).toBe('refused');
  });
});

describe('an accepted prompt without an answer', () => {
  test('is sent once more, identical, after the start window', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      if (api.prompts.length === 2) api.answer(prompt.messageId, 'at last');
    };
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'at last' });
    expect(api.prompts).toHaveLength(2);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
  });

  test.each([
    ['after a second attempt', false, 'did not begin to answer', 2],
    ['at once if opencode stores only prompts that it runs', true, 'somebody interrupted it', 1],
  ])('is interrupted %s', async (_, isIdempotent, reason, prompts) => {
    const api = new FakeApi();
    api.isIdempotent = isIdempotent;
    expect((await run(api)).outcome).toMatchObject({
      kind: 'interrupted',
      reason: expect.stringContaining(reason) as string,
    });
    expect(api.prompts).toHaveLength(prompts);
  });

  test.each([
    ['at once', 1],
    ['after the start window', 25_000],
  ])('is interrupted, and not sent again, if its process ends %s', async (_, ms) => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus({ type: 'busy' });
      void clock.sleep(ms).then(() => {
        api.status = { type: 'idle' };
        api.breakStreams();
      });
    };
    expect((await run(api, { clock })).outcome).toEqual({
      kind: 'interrupted',
      reason: 'the instance was restarted before it began to answer',
    });
    expect(api.prompts).toHaveLength(1);
  });

  test('is not sent again at the deadline, and reported as running', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    // The deadline is the time at which the message would be sent again.
    const { outcome } = await run(api, { deadlineMs: clock.monotonic() + 20_000, clock });
    expect([outcome.kind, api.prompts.length]).toEqual(['running', 1]);
  });

  test('is followed on a cold instance that stores it seconds later', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.onPrompt = (prompt) => {
      void clock.sleep(8_000).then(() => {
        api.accept(prompt);
        api.answer(prompt.messageId, 'warm now');
      });
    };
    expect(await run(api, { clock })).toMatchObject({ outcome: { kind: 'completed' }, text: 'warm now' });
    expect(api.prompts).toHaveLength(1);
  });
});

describe.each(['cancelled', 'expired'] as const)('a call that is %s', (how) => {
  /** The options of a turn whose call is over as soon as `end` is called. */
  function endableCall() {
    const caller = new AbortController();
    const ticking = leapingClock();
    let nowMs: number | undefined;
    const clock = { ...ticking, monotonic: () => nowMs ?? ticking.monotonic() };
    const deadlineMs = clock.monotonic() + 60_000;
    const end = (): void => {
      if (how === 'cancelled') caller.abort();
      else nowMs = deadlineMs;
    };
    return { end, options: { clock, signal: caller.signal, deadlineMs } };
  }

  type Arrange = (api: FakeApi, end: () => void) => Options | void;
  test.each<[string, number, Arrange]>([
    ['while the status is slow', 0, (api, end) => void (api.onStatuses = end)],
    ['before the status failed', 0, (api, end) => void (api.onStatuses = throwing(TIMEOUT, end))],
    ['while its request id is saved', 0, (_, end) => ({ beforeSend: () => Promise.resolve(end()) })],
    [
      'before its request id is saved',
      0,
      (api, end) => {
        api.onStatuses = end;
        return { beforeSend: () => Promise.reject(new Error('the request id was saved')) };
      },
    ],
    [
      'while another message is about to start',
      0,
      (api, end) => {
        addUnanswered(api);
        let requests = 0;
        api.onStatuses = () => {
          requests += 1;
          if (requests === 2) end();
          // The call's clock does not advance from then on.
          if (requests > 2) throw new Error('the status was read again');
        };
      },
    ],
    ['after an attempt that never connected', 1, (api, end) => api.failPrompts(UNREACHABLE, end)],
    [
      'before it begins again over another endpoint',
      1,
      (api, end) => {
        const other = new FakeApi();
        api.failPrompts(UNREACHABLE);
        other.onStatuses = end;
        other.onPrompt = throwing(new Error('the prompt was sent'));
        return { next: () => Promise.resolve(other.endpoint('other')) };
      },
    ],
  ])('%s sends nothing more (%d attempts) and says that it is over', async (_, attempts, arrange) => {
    const { end, options } = endableCall();
    const api = new FakeApi();
    const turn = run(api, { ...options, ...arrange(api, end) });
    await expect(turn).rejects.toThrow(CallOver);
    await expect(turn).rejects.toThrow(/^the (call was cancelled|time for this call ran out)$/);
    expect([api.prompts.length, api.subscriptions]).toEqual([attempts, 1]);
  });

  test.each([
    ['absent', undefined],
    ['unreadable', TIMEOUT],
  ])('sends a prompt in doubt only once if its message is %s', async (_, error) => {
    const { end, options } = endableCall();
    const api = new FakeApi();
    api.failPrompts(BROKEN);
    let messageReads = 0;
    api.message = () => {
      messageReads += 1;
      end();
      return error === undefined ? Promise.resolve(undefined) : Promise.reject(error);
    };
    expect((await run(api, options)).outcome).toEqual({ kind: 'unknown', reason: BROKEN.message });
    expect([api.prompts.length, messageReads]).toEqual([1, 1]);
  });
});

test('a cancelled call does not wait for a status that hangs', async () => {
  const api = new FakeApi();
  const caller = new AbortController();
  api.statuses = () => {
    caller.abort();
    return new Promise(() => {});
  };
  await expect(run(api, { signal: caller.signal })).rejects.toThrow(CallOver);
  expect(api.prompts).toEqual([]);
});

describe('a turn ends', () => {
  const error = (name: string, message: string) => ({ error: { name, data: { message } } });

  test('failed, with the error of the model, if the session is idle before the message is complete', async () => {
    const api = new FakeApi();
    api.workOnPrompt((id) => {
      api.setStatus({ type: 'idle' });
      setImmediate(() => api.finish(id, '', error('APIError', 'no credit')));
    });
    expect((await run(api)).outcome).toEqual({ kind: 'failed', reason: 'opencode says "APIError: no credit"' });
  });

  test('failed at once, with an error that is not in the store', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    const startMs = clock.now();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.emit('session.error', error('UnknownError', 'Model not found: a/b.\n    at loop (chunk.js:1:2)\n'));
    };
    const { outcome } = await run(api, { clock });
    expect(outcome).toEqual({ kind: 'failed', reason: 'opencode says "UnknownError: Model not found: a/b."' });
    expect([clock.now() - startMs, api.prompts.length]).toEqual([0, 1]);
  });

  test.each([
    ['of a step after which it continues', { type: 'busy' }, error('UnknownError', 'Read tool failed')],
    ['that a compaction resolves', { type: 'busy' }, error('ContextOverflowError', 'too long')],
    ['of another session', { type: 'idle' }, { sessionID: 'ses_other', ...error('UnknownError', 'not ours') }],
  ] as const)('completed in spite of an error %s', async (_, during, properties) => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.setStatus(during);
      api.emit('session.error', properties);
      setImmediate(() => api.answer(prompt.messageId, 'done'));
    };
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });

  test.each([
    ['failed', 'its session was deleted', () => {}],
    ['unknown', 'another process answers, without its session', (api: FakeApi) => api.breakStreams()],
  ])('%s, if %s', async (kind, _, then) => {
    const api = new FakeApi();
    api.workOnPrompt(() => {
      api.messages = throwing(status(404));
      then(api);
    });
    expect((await run(api)).outcome.kind).toBe(kind);
  });

  test('aborted, when another caller aborts it', async () => {
    const api = new FakeApi();
    api.workOnPrompt((id) => {
      api.finish(id, 'so far', error('MessageAbortedError', 'aborted'));
      api.setStatus({ type: 'idle' });
    });
    expect(await run(api)).toMatchObject({ outcome: { kind: 'aborted' }, text: 'so far' });
  });

  test.each([
    ['aborted', 'between two attempts of a failing model', []],
    ['interrupted', 'in a later attempt', [{ type: 'busy' }]],
  ] as const)('%s, when it stops %s without an error or a reason', async (kind, _, then) => {
    const api = new FakeApi();
    api.workOnPrompt((id) => {
      for (const next of [{ type: 'retry', attempt: 1, message: 'overloaded' } as const, ...then]) api.setStatus(next);
      api.finish(id, '', {});
      api.setStatus({ type: 'idle' });
    });
    expect((await run(api)).outcome.kind).toBe(kind);
  });

  test('interrupted, when its process is gone and the new process shows it incomplete and idle', async () => {
    const api = new FakeApi();
    api.workOnPrompt(() => {
      api.status = { type: 'idle' };
      setImmediate(() => api.breakStreams());
    });
    expect((await run(api)).outcome.kind).toBe('interrupted');
  });

  test('unknown, when the stream cannot be opened again', async () => {
    const api = new FakeApi();
    api.workOnPrompt(() => {
      api.onEvents = throwing(UNREACHABLE);
      api.onStatuses = api.onEvents;
      setImmediate(() => api.breakStreams());
    });
    expect((await run(api)).outcome).toMatchObject({
      kind: 'unknown',
      reason: expect.stringContaining('ECONNREFUSED') as string,
    });
  });

  test('completed by its events, if the store can no longer be read', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.messages = () => Promise.reject(new RequestError('too-large', 'GET /session/x/message: larger than'));
      api.answer(prompt.messageId, 'all of it');
    };
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'all of it', shown: 'all of it' });
  });

  test('running, at the deadline, with the retry of the model', async () => {
    const api = new FakeApi();
    api.workOnPrompt(() => api.setStatus({ type: 'retry', attempt: 3, message: 'overloaded' }));
    const { outcome } = await run(api);
    expect(outcome).toEqual({ kind: 'running', retrying: { attempt: 3, message: 'overloaded' } });
  });

  test('cancelled, without an abort of the run', async () => {
    const api = new FakeApi();
    const caller = new AbortController();
    api.workOnPrompt(() => setImmediate(() => caller.abort()));
    let aborts = 0;
    api.abort = () => Promise.resolve(void (aborts += 1));
    expect((await run(api, { signal: caller.signal })).outcome.kind).toBe('cancelled');
    expect(aborts).toBe(0);
  });
});

describe('without an event stream through a proxy', () => {
  const WITHHELD = [
    new RequestError('status', 'GET /event: HTTP 403', { status: 403 }),
    new RequestError('malformed', 'GET /event: answered "text/html"'),
    new RequestError('timeout', 'GET /event: no complete answer within 10000 ms'),
    new RequestError('broken', 'GET /event: socket hang up'),
  ];

  test.each(WITHHELD)('a turn is followed by store and status: $message', async (error) => {
    const api = new FakeApi();
    api.onEvents = throwing(error);
    api.answerWith('done');
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text: 'done', shown: 'done' });
    expect(api.prompts).toHaveLength(1);
  });

  test('a prompt in doubt is not sent again: another process may answer by now', async () => {
    const api = new FakeApi();
    api.onEvents = throwing(status(502));
    api.failPrompts(BROKEN);
    expect((await run(api)).outcome.kind).toBe('unknown');
    expect(api.prompts).toHaveLength(1);
  });

  test('a turn that loses its stream is followed by store and status to the end', async () => {
    const api = new FakeApi();
    const clock = leapingClock();
    api.workOnPrompt((id) => {
      api.onEvents = throwing(status(502));
      setImmediate(() => api.breakStreams());
      // Longer than the attempts to reopen a stream.
      void clock.sleep(30_000).then(() => {
        api.finish(id, 'done');
        api.status = { type: 'idle' };
      });
    });
    expect(await run(api, { clock })).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });

  test.each(['unreachable', 'locked'] as const)('nothing is sent to an instance that is %s', async (kind) => {
    const api = new FakeApi();
    api.onEvents = throwing(new RequestError(kind, 'GET /event: no'));
    await expect(run(api)).rejects.toThrow('GET /event: no');
    expect(api.prompts).toEqual([]);
  });
});

describe('a turn whose endpoint fails for good', () => {
  /** Two endpoints of one process. */
  function twoEndpoints(): { api: FakeApi; other: FakeApi; next: NextEndpoint } {
    const api = new FakeApi();
    const other = new FakeApi(api.store);
    return { api, other, next: () => Promise.resolve(other.endpoint('other')) };
  }

  function disconnect(api: FakeApi): void {
    api.onEvents = throwing(UNREACHABLE);
    api.onStatuses = throwing(UNREACHABLE);
    api.messages = () => Promise.reject(UNREACHABLE);
    api.message = () => Promise.reject(UNREACHABLE);
    api.breakStreams();
  }

  test('continues over another endpoint as soon as there is one, with the whole text and without a second prompt', async () => {
    const { api, other } = twoEndpoints();
    let id = '';
    api.workOnPrompt((answerId) => {
      id = answerId;
      api.beginText(id);
      api.addText(id, 'one ');
      setImmediate(() => disconnect(api));
    });
    other.status = { type: 'busy' };
    other.onEvents = () => {
      setImmediate(() =>
        setImmediate(() => {
          other.finish(id, 'one two');
          other.setStatus({ type: 'idle' });
        }),
      );
    };
    let requests = 0;
    const next: NextEndpoint = () => {
      requests += 1;
      return Promise.resolve(requests < 3 ? undefined : other.endpoint('other'));
    };
    expect(await run(api, { next })).toMatchObject({
      outcome: { kind: 'completed' },
      text: 'one two',
      shown: 'one two',
    });
    expect([requests, api.prompts.length, other.prompts.length]).toEqual([3, 1, 0]);
  });

  test('looks for a prompt in doubt over the other endpoint', async () => {
    const { api, other, next } = twoEndpoints();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      disconnect(api);
      throw BROKEN;
    };
    other.onEvents = () => setImmediate(() => other.answer(api.prompts[0]?.messageId ?? '', 'done'));
    expect(await run(api, { next })).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
    expect([api.prompts.length, other.prompts.length]).toEqual([1, 0]);
  });

  test('never repeats a prompt over the other endpoint', async () => {
    const { api, other, next } = twoEndpoints();
    api.failPrompts(BROKEN, () => disconnect(api));
    expect((await run(api, { next })).outcome.kind).toBe('unknown');
    expect(other.prompts).toEqual([]);
  });

  test('repeats a prompt that the other endpoint does not show over the first endpoint, if its stream is open', async () => {
    const { api, other, next } = twoEndpoints();
    api.onPrompt = (prompt) => {
      if (api.prompts.length === 1) throw BROKEN;
      api.accept(prompt);
      api.answer(prompt.messageId, 'done');
    };
    api.message = () => Promise.reject(BROKEN);
    expect((await run(api, { next })).outcome.kind).not.toBe('unknown');
    expect([api.prompts.length, other.prompts.length]).toEqual([2, 0]);
    expect(api.prompts[1]).toEqual(api.prompts[0]);
  });

  test('begins again over the other endpoint, after its newest message, if nothing was sent', async () => {
    const { api, other, next } = twoEndpoints();
    api.failPrompts(UNREACHABLE, () => disconnect(api));
    other.answerWith('done');
    expect(await run(api, { next })).toMatchObject({ outcome: { kind: 'completed' }, shown: 'done' });
    expect(other.prompts).toHaveLength(1);
  });

  test('is refused if nothing was sent over any endpoint', async () => {
    const { api, other } = twoEndpoints();
    for (const one of [api, other]) one.failPrompts(UNREACHABLE);
    const next: NextEndpoint = (failed) =>
      Promise.resolve(failed.includes('other') ? undefined : other.endpoint('other'));
    expect((await run(api, { next })).outcome.kind).toBe('refused');
  });

  test('reads status and messages again after the stream broke before anything was sent', async () => {
    const api = new FakeApi();
    api.onStatuses = () => {
      if (api.subscriptions > 1) return;
      api.breakStreams();
      // Another message arrives first.
      setImmediate(() => setImmediate(() => (api.status = { type: 'busy' })));
    };
    const messages = api.messages.bind(api);
    api.messages = async (id, query) => {
      for (let turns = 0; turns < 3; turns += 1) await nextTurn();
      return messages(id, query);
    };
    expect((await run(api)).outcome.kind).toBe('busy');
    expect(api.prompts).toEqual([]);
  });

  test('keeps the first endpoint if it recovers by itself', async () => {
    const api = new FakeApi();
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      setImmediate(() => {
        api.breakStreams();
        api.answer(prompt.messageId, 'done');
      });
    };
    const next = throwing(new Error('another endpoint was requested'));
    expect(await run(api, { next })).toMatchObject({ outcome: { kind: 'completed' }, text: 'done' });
  });
});

describe('a turn whose stream breaks in the middle of a part', () => {
  test('holds that part back until it ends', async () => {
    const api = new FakeApi();
    let id = '';
    api.workOnPrompt((answerId) => {
      id = answerId;
      api.beginText(id);
      api.addText(id, 'one ');
      setImmediate(() => api.breakStreams());
    });
    api.onEvents = () => {
      if (api.subscriptions !== 2) return;
      // "two " was missed while the stream was down.
      setImmediate(() =>
        setImmediate(() => {
          api.addText(id, 'three');
          api.finish(id, 'one two three');
          api.setStatus({ type: 'idle' });
        }),
      );
    };
    const text = 'one two three';
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text, shown: text });
  });

  test('is completed, although its idle event was lost in the gap', async () => {
    const api = new FakeApi();
    api.workOnPrompt((id) => {
      api.beginText(id);
      api.addText(id, 'half ');
      setImmediate(() => {
        api.breakStreams();
        api.finish(id, 'half and half');
        api.status = { type: 'idle' };
      });
    });
    const text = 'half and half';
    expect(await run(api)).toMatchObject({ outcome: { kind: 'completed' }, text, shown: text });
  });
});

describe('a turn that stops for an answer', () => {
  test("returns with a sub-agent's request whose session started before the stream", async () => {
    const api = new FakeApi();
    api.sessionList.push(
      { ...SESSION, id: 'ses_child', parentID: SESSION.id },
      { ...SESSION, id: 'ses_grandchild', parentID: 'ses_child' },
    );
    api.workOnPrompt(() => api.emit('permission.asked', { ...permission('msg_child', 'per_1', 'ses_grandchild') }));
    expect((await run(api)).outcome).toMatchObject({
      kind: 'waiting',
      waiting: { request: { id: 'per_1' } },
      ofSubAgent: true,
    });
  });

  test("continues past another session's request", async () => {
    const api = new FakeApi();
    api.sessionList.push({ ...SESSION, id: 'ses_other' });
    api.onPrompt = (prompt) => {
      api.accept(prompt);
      api.emit('permission.asked', { ...permission('msg_other', 'per_1', 'ses_other') });
      api.answer(prompt.messageId, 'done');
    };
    expect((await run(api)).outcome.kind).toBe('completed');
  });

  test('returns with a request from a gap of the stream, and ignores one that an abort left behind', async () => {
    const api = new FakeApi();
    api.permissionList.push(permission('msg_earlier', 'per_stale'));
    api.workOnPrompt((id) =>
      setImmediate(() => {
        api.breakStreams();
        api.permissionList.push(permission(id, 'per_new'));
      }),
    );
    expect((await run(api)).outcome).toMatchObject({
      kind: 'waiting',
      waiting: { request: { id: 'per_new' } },
      ofSubAgent: false,
    });
  });
});
