import { describe, expect, test } from 'vitest';

import type { Message, Part, Session } from '../../src/opencode/schema.ts';
import { endOf } from '../../src/turns/last-turn.ts';
import { Transcript } from '../../src/turns/transcript.ts';
import { lastTurnOf, undoneIn } from '../../src/turns/turn-messages.ts';
import { FakeApi, SESSION } from './fake-api.ts';

/** A session in short: `u` and `a` with their fields, a second apart. */
function session(
  ...steps: readonly (readonly [role: 'u' | 'a', text: string, extra?: object, part?: object])[]
): Message[] {
  return steps.map(([role, text, extra = {}, fields = {}], index) => {
    const id = `msg_00000000000${index}${role}`;
    const created = 1_000 * index;
    const part = {
      id: `prt_${index}`,
      messageID: id,
      type: 'text',
      text,
      time: { start: 1, end: 2 },
      ...fields,
    } as Part;
    const info =
      role === 'u'
        ? { id, role: 'user', time: { created }, ...extra }
        : {
            id,
            role: 'assistant',
            parentID: 'msg_any',
            time: { created, completed: created + 500 },
            finish: 'stop',
            ...extra,
          };
    return { info: info as Message['info'], parts: text === '' && !('type' in fields) ? [] : [part] };
  });
}

const STEP = { finish: 'tool-calls' };
const EMPTY = { finish: undefined };
const SUMMARY = { summary: true };
const AUTO = { type: 'compaction', auto: true };
const BY_HAND = { type: 'compaction', auto: false };
const OWN = { synthetic: true };
const LATER = { time: { created: 60_000 } };

function turnOf(messages: readonly Message[], at = 0): { text: string; end: string } {
  const turn = new Transcript(SESSION.id, messages[at]!.info.id);
  turn.reconcile(messages.slice(at));
  return { text: turn.text, end: endOf(turn).kind };
}

describe('a turn goes on', () => {
  test.each([
    [
      'after a compaction that opencode began',
      session(
        ['u', 'do'],
        ['a', 'one', STEP],
        ['u', '', {}, AUTO],
        ['a', 'sum', SUMMARY],
        ['u', 'go on', {}, OWN],
        ['a', 'two'],
      ),
    ],
    [
      'after one that came with its last step',
      session(
        ['u', 'do'],
        ['a', 'one'],
        ['u', '', {}, AUTO],
        ['a', 'sum', SUMMARY],
        ['u', 'go on', {}, OWN],
        ['a', 'two'],
      ),
    ],
    [
      'under its message that opencode repeats, however late',
      session(
        ['u', 'do'],
        ['a', '', EMPTY],
        ['u', '', {}, { ...AUTO, overflow: true }],
        ['a', 'sum', SUMMARY],
        ['u', 'do', LATER],
        ['a', 'one\n\ntwo', { time: { created: 60_001, completed: 60_002 } }],
      ),
    ],
    [
      'under what opencode writes between two steps, as for a plan that was approved',
      session(['u', 'do'], ['a', 'one', STEP], ['u', 'execute it', {}, OWN], ['a', 'two']),
    ],
    [
      'under what a person writes while it runs',
      session(['u', 'do'], ['a', 'one', STEP], ['u', 'and that'], ['a', 'two']),
    ],
  ])('%s', (_, messages) => {
    expect(turnOf(messages)).toEqual({ text: 'one\n\ntwo', end: 'completed' });
  });
});

describe('a turn has ended', () => {
  test.each([
    ['before what a person writes next', 'completed', session(['u', 'do'], ['a', 'one'], ['u', 'next'], ['a', 'two'])],
    [
      'where its call was refused, before what is written later',
      'completed',
      session(
        ['u', 'do'],
        ['a', 'one', STEP],
        ['u', 'next', LATER],
        ['a', 'two', { time: { created: 60_001, completed: 60_002 } }],
      ),
    ],
    [
      'where its process was killed, before what is written later',
      'interrupted',
      session(['u', 'do'], ['a', 'one', { ...EMPTY, time: { created: 1_000 } }], ['u', 'next'], ['a', 'two']),
    ],
    [
      'before a compaction by hand, also where that fails',
      'completed',
      session(
        ['u', 'do'],
        ['a', 'one'],
        ['u', '', {}, BY_HAND],
        ['a', 'sum', { ...SUMMARY, error: { name: 'ContextOverflowError' } }],
      ),
    ],
    [
      'before a command that a person runs',
      'completed',
      session(['u', 'do'], ['a', 'one'], ['u', 'was run', {}, OWN], ['a', '', EMPTY, { type: 'tool' }]),
    ],
    [
      'with a compaction by hand in the middle of it',
      'interrupted',
      session(['u', 'do'], ['a', 'one', STEP], ['u', '', {}, BY_HAND], ['a', 'sum', SUMMARY]),
    ],
    [
      'with one that failed',
      'failed',
      session(
        ['u', 'do'],
        ['a', 'one', STEP],
        ['u', '', {}, AUTO],
        ['a', '', { ...SUMMARY, error: { name: 'ContextOverflowError' } }],
      ),
    ],
    [
      'with one after its last step that nothing followed',
      'completed',
      session(['u', 'do'], ['a', 'one'], ['u', '', {}, AUTO], ['a', 'sum', SUMMARY]),
    ],
  ])('%s: %s', (_, end, messages) => {
    expect(turnOf(messages)).toEqual({ text: 'one', end });
  });

  test('without text, error or reason: reported as such, and not as aborted', () => {
    expect(turnOf(session(['u', 'do'], ['a', '', EMPTY]))).toEqual({ text: '', end: 'interrupted' });
  });
});

describe('two messages that came at the same moment', () => {
  const messages = session(['u', 'one'], ['u', 'two'], ['a', 'both'], ['u', 'three', LATER]);

  test.each([
    [0, 'msg_000000000001u'],
    [1, 'msg_000000000000u'],
  ])('and are answered together: the %i. names the other', (at, other) => {
    const turn = new Transcript(SESSION.id, messages[at]!.info.id);
    turn.reconcile(messages);
    expect(turn.text).toBe('both');
    expect(endOf(turn)).toEqual({
      kind: 'completed',
      reason: `opencode answered it together with ${other}, sent at the same moment`,
    });
  });

  test('are distinguished from an old unanswered message', () => {
    const [old, ...rest] = session(
      ['u', 'old'],
      ['u', 'now', LATER],
      ['a', 'one', { time: { created: 60_001, completed: 60_002 } }],
    );
    const turn = new Transcript(SESSION.id, rest[0]!.info.id);
    turn.reconcile([old!, ...rest]);
    expect(endOf(turn)).toEqual({ kind: 'completed' });
  });
});

describe('an answer that is not whole', () => {
  test.each(['length', 'content-filter'])('since it ended for %s: the result says so', (finish) => {
    const turn = new Transcript(SESSION.id, 'msg_000000000000u');
    turn.reconcile(session(['u', 'do'], ['a', 'half', { finish }]));
    expect(endOf(turn)).toEqual({ kind: 'completed', reason: expect.stringContaining('its answer is cut') as string });
  });
});

describe('undone messages', () => {
  const waited = 'msg_000000000000z';
  const messages = session(['u', 'do'], ['a', 'one'], ['u', 'waited in the queue'], ['a', 'two']).map(
    (message, index) => (index === 2 ? { ...message, info: { ...message.info, id: waited } } : message),
  ) as readonly Message[];
  const undone = async (revert: Session['revert']): Promise<readonly string[]> => {
    const api = new FakeApi();
    api.store.push(...messages);
    return [...(await undoneIn(api, { ...SESSION, revert }))];
  };

  test('is everything listed after it, and not the answer before an older queued prompt', async () => {
    expect(await undone({ messageID: waited })).toEqual([waited, 'msg_000000000003a']);
    expect(await undone({ messageID: waited, partID: 'prt_1' })).toEqual(['msg_000000000003a']);
  });

  test('is nothing if the message no longer exists', async () => {
    expect(await undone({ messageID: 'msg_000000000000b' })).toEqual([]);
    expect(await undone(null)).toEqual([]);
  });
});

describe('the last turn', () => {
  async function lastOf(messages: readonly Message[], revert?: Session['revert']): Promise<string | undefined> {
    const api = new FakeApi();
    api.store.push(...messages);
    return (await lastTurnOf(api, { ...SESSION, revert }))?.messageId;
  }

  test.each([
    ['a message', { messageID: 'msg_000000000002u' }],
    ['an answer', { messageID: 'msg_000000000001a' }],
  ])('is the one that stands where all from %s on was undone', async (_, revert) => {
    expect(await lastOf(session(['u', 'do'], ['a', 'one'], ['u', 'undone'], ['a', 'two']), revert)).toBe(
      'msg_000000000000u',
    );
  });

  test('includes a message with an undone part', async () => {
    const revert = { messageID: 'msg_000000000003a', partID: 'prt_3' };
    expect(await lastOf(session(['u', 'do'], ['a', 'one'], ['u', 'then'], ['a', 'two']), revert)).toBe(
      'msg_000000000002u',
    );
  });

  test.each([
    [
      'began before what continues it',
      'msg_000000000002u',
      session(
        ['u', 'old'],
        ['a', 'x'],
        ['u', 'do'],
        ['a', 'one'],
        ['u', '', {}, AUTO],
        ['a', 'sum', SUMMARY],
        ['u', 'go on', {}, OWN],
        ['a', 'two'],
      ),
    ],
    [
      'is the one before a compaction by hand',
      'msg_000000000000u',
      session(['u', 'do'], ['a', 'one'], ['u', '', {}, BY_HAND], ['a', 'sum', SUMMARY]),
    ],
    [
      'may be what opencode wrote by itself, and answered',
      'msg_000000000002u',
      session(['u', 'do'], ['a', 'one'], ['u', 'a task is done', {}, OWN], ['a', 'two']),
    ],
    [
      'is none of what a plugin only notes down',
      'msg_000000000000u',
      session(['u', 'do'], ['a', 'one'], ['u', 'pruned', {}, { ignored: true }]),
    ],
    ['is none where nobody said anything', undefined, session(['u', '', {}, BY_HAND], ['a', 'sum', SUMMARY])],
  ])('%s', async (_, id, messages) => {
    expect(await lastOf(messages)).toBe(id);
  });

  test('is found behind more messages than one page holds', async () => {
    const steps = Array.from({ length: 70 }, (): ['a', string, object] => ['a', 'x', STEP]);
    expect(await lastOf(session(['u', 'old'], ['a', 'x'], ['u', 'do'], ...steps))).toBe('msg_000000000002u');
  });
});
