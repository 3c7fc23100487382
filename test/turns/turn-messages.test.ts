import { describe, expect, test } from 'vitest';

import type { Message, Session } from '../../src/opencode/schema.ts';
import { endOf } from '../../src/turns/last-turn.ts';
import type { TurnOutcome } from '../../src/turns/outcome.ts';
import { Transcript } from '../../src/turns/transcript.ts';
import { lastTurnOf, undoneIn } from '../../src/turns/turn-messages.ts';
import { FakeApi, SESSION } from './fake-api.ts';

/** A message of a session in short; an empty text leaves it without parts. */
interface Step {
  readonly role: 'user' | 'assistant';
  readonly text: string;
  readonly info?: object;
  readonly part?: object;
}

const person = (text: string, info = {}): Step => ({ role: 'user', text, info });
/** Written by opencode itself. */
const own = (text: string): Step => ({ role: 'user', text, part: { synthetic: true } });
const answer = (text: string, info = {}): Step => ({ role: 'assistant', text, info });
const step = (text: string): Step => answer(text, { finish: 'tool-calls' });
const attempt = (text: string, info = {}): Step => answer(text, { finish: undefined, ...info });
const compaction = (part: object): Step => ({ role: 'user', text: '', part: { type: 'compaction', ...part } });
const AUTO = compaction({ auto: true });
const BY_HAND = compaction({ auto: false });
const SUMMARY = answer('sum', { summary: true });
const FAILED_SUMMARY = answer('', { summary: true, error: { name: 'ContextOverflowError' } });
const LATER = { time: { created: 60_000 } };
const LATER_ANSWER = { time: { created: 60_001, completed: 60_002 } };

/** These messages, a second apart. */
function session(...steps: readonly Step[]): Message[] {
  return steps.map(({ role, text, info = {}, part }, index) => {
    const id = `msg_00000000000${index}${role === 'user' ? 'u' : 'a'}`;
    const created = 1_000 * index;
    const ended = { parentID: 'msg_any', time: { created, completed: created + 500 }, finish: 'stop' };
    const textPart = { id: `prt_${index}`, messageID: id, type: 'text', text, time: { start: 1, end: 2 } };
    return {
      info: { id, role, time: { created }, ...(role === 'assistant' && ended), ...info } as Message['info'],
      parts: text === '' && part === undefined ? [] : [{ ...textPart, ...part }],
    };
  });
}

function transcriptOf(messages: readonly Message[], { info }: Message): Transcript {
  const turn = new Transcript(SESSION.id, info.id);
  turn.reconcile(messages);
  return turn;
}

function turnOf(...steps: readonly Step[]): { text: string; end: TurnOutcome } {
  const messages = session(...steps);
  const turn = transcriptOf(messages, messages[0]!);
  return { text: turn.text, end: endOf(turn) };
}

describe('a turn goes on', () => {
  test.each<[string, ...Step[]]>([
    ['after a compaction that opencode began', person('do'), step('one'), AUTO, SUMMARY, own('go on'), answer('two')],
    ['after a compaction with its last step', person('do'), answer('one'), AUTO, SUMMARY, own('go on'), answer('two')],
    [
      'under its message that opencode repeats, however late',
      person('do'),
      attempt(''),
      compaction({ auto: true, overflow: true }),
      SUMMARY,
      person('do', LATER),
      answer('one\n\ntwo', LATER_ANSWER),
    ],
    ['under a message of opencode between two steps', person('do'), step('one'), own('execute it'), answer('two')],
    ['under a message that a person writes while it runs', person('do'), step('one'), person('and'), answer('two')],
  ])('%s', (_, ...steps) => {
    expect(turnOf(...steps)).toEqual({ text: 'one\n\ntwo', end: { kind: 'completed' } });
  });
});

describe('a turn has ended', () => {
  test.each<[string, string, ...Step[]]>([
    ['before the next message of a person', 'completed', person('do'), answer('one'), person('next'), answer('two')],
    [
      'with a refused call, before a later message',
      'completed',
      person('do'),
      step('one'),
      person('next', LATER),
      answer('two', LATER_ANSWER),
    ],
    [
      'when its process was killed, before a later message',
      'interrupted',
      person('do'),
      attempt('one', { time: { created: 1_000 } }),
      person('next'),
      answer('two'),
    ],
    [
      'before a compaction by hand, even a failed one',
      'completed',
      person('do'),
      answer('one'),
      BY_HAND,
      FAILED_SUMMARY,
    ],
    [
      'before a command that a person runs',
      'completed',
      person('do'),
      answer('one'),
      own('was run'),
      { ...attempt(''), part: { type: 'tool' } },
    ],
    ['with a compaction by hand in the middle of it', 'interrupted', person('do'), step('one'), BY_HAND, SUMMARY],
    ['with a failed compaction', 'failed', person('do'), step('one'), AUTO, FAILED_SUMMARY],
    ['with a compaction after its last step', 'completed', person('do'), answer('one'), AUTO, SUMMARY],
  ])('%s: %s', (_, end, ...steps) => {
    expect(turnOf(...steps)).toMatchObject({ text: 'one', end: { kind: end } });
  });

  test('without text, error or reason: interrupted, not aborted', () => {
    expect(turnOf(person('do'), attempt(''))).toMatchObject({ text: '', end: { kind: 'interrupted' } });
  });
});

describe('two messages sent at the same moment', () => {
  test.each([
    [0, 'msg_000000000001u'],
    [1, 'msg_000000000000u'],
  ])('share their answer: number %i names the other', (at, other) => {
    const messages = session(person('one'), person('two'), answer('both'), person('three', LATER));
    const turn = transcriptOf(messages, messages[at]!);
    expect(turn.text).toBe('both');
    expect(endOf(turn)).toEqual({
      kind: 'completed',
      reason: `opencode answered it together with ${other}, sent at the same moment`,
    });
  });

  test('are distinguished from an old unanswered message', () => {
    const messages = session(person('old'), person('now', LATER), answer('one', LATER_ANSWER));
    expect(endOf(transcriptOf(messages, messages[1]!))).toEqual({ kind: 'completed' });
  });
});

test.each(['length', 'content-filter'])('the result says that an answer was cut: %s', (finish) => {
  const messages = session(person('do'), answer('half', { finish }));
  expect(endOf(transcriptOf(messages, messages[0]!))).toEqual({
    kind: 'completed',
    reason: expect.stringContaining('its answer is cut') as string,
  });
});

describe('undone messages', () => {
  const queued = 'msg_000000000000z';
  const messages = session(person('do'), answer('one'), person('queued', { id: queued }), answer('two'));

  test.each<[string, Session['revert'], string[]]>([
    ['all listed from an older queued prompt on', { messageID: queued }, [queued, 'msg_000000000003a']],
    [
      'all after a message that is undone from a part on',
      { messageID: queued, partID: 'prt_1' },
      ['msg_000000000003a'],
    ],
    ['none if the message no longer exists', { messageID: 'msg_000000000000b' }, []],
    ['none without a mark', null, []],
  ])('are %s', async (_, revert, expected) => {
    expect([...(await undoneIn(new FakeApi(messages), { ...SESSION, revert }))]).toEqual(expected);
  });
});

describe('the last turn', () => {
  const lastOf = async (messages: Message[], revert?: Session['revert']): Promise<string | undefined> =>
    (await lastTurnOf(new FakeApi(messages), { ...SESSION, revert }))?.messageId;

  test.each([
    ['is an earlier one if a message was undone', 'msg_000000000000u', { messageID: 'msg_000000000002u' }],
    ['is the one whose answer was undone', 'msg_000000000000u', { messageID: 'msg_000000000001a' }],
    [
      'includes a message with an undone part',
      'msg_000000000002u',
      { messageID: 'msg_000000000003a', partID: 'prt_3' },
    ],
  ])('%s', async (_, id, revert) => {
    expect(await lastOf(session(person('do'), answer('one'), person('then'), answer('two')), revert)).toBe(id);
  });

  const OLD = [person('old'), answer('x')];
  const DONE = [person('do'), answer('one')];
  test.each<[string, string | undefined, ...Step[]]>([
    [
      'began before the messages that continue it',
      'msg_000000000002u',
      ...OLD,
      ...DONE,
      AUTO,
      SUMMARY,
      own('go on'),
      answer('two'),
    ],
    ['is the one before a compaction by hand', 'msg_000000000000u', ...DONE, BY_HAND, SUMMARY],
    [
      'may begin with an answered message of opencode',
      'msg_000000000002u',
      ...DONE,
      own('a task is done'),
      answer('two'),
    ],
    [
      'does not begin with the note of a plugin',
      'msg_000000000000u',
      ...DONE,
      { ...own('pruned'), part: { ignored: true } },
    ],
    ['does not exist without a message of a person', undefined, BY_HAND, SUMMARY],
    [
      'is found behind more messages than one page holds',
      'msg_000000000002u',
      ...OLD,
      person('do'),
      ...Array.from({ length: 70 }, () => step('x')),
    ],
  ])('%s', async (_, id, ...steps) => {
    expect(await lastOf(session(...steps))).toBe(id);
  });
});
