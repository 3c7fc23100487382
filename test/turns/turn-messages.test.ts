import { describe, expect, test } from 'vitest';

import type { Message, Session } from '../../src/opencode/schema.ts';
import { endOf } from '../../src/turns/last-turn.ts';
import type { TurnOutcome } from '../../src/turns/outcome.ts';
import { Transcript } from '../../src/turns/transcript.ts';
import { lastTurnOf, undoneIn } from '../../src/turns/turn-messages.ts';
import { FakeApi, SESSION } from './fake-api.ts';

/** A message in short form; one with an empty text has no parts. */
interface Step {
  readonly role: 'user' | 'assistant';
  readonly text: string;
  readonly info?: object;
  readonly part?: object;
}

const userMessage = (text: string, info = {}): Step => ({ role: 'user', text, info });
/** A message that opencode itself wrote. */
const synthetic = (text: string): Step => ({ role: 'user', text, part: { synthetic: true } });
const answer = (text: string, info = {}): Step => ({ role: 'assistant', text, info });
const step = (text: string): Step => answer(text, { finish: 'tool-calls' });
const attempt = (text: string, info = {}): Step => answer(text, { finish: undefined, ...info });
const compaction = (part: object): Step => ({ role: 'user', text: '', part: { type: 'compaction', ...part } });
const AUTO = compaction({ auto: true });
const MANUAL = compaction({ auto: false });
const SUMMARY = answer('sum', { summary: true });
const FAILED_SUMMARY = answer('', { summary: true, error: { name: 'ContextOverflowError' } });
const LATER = { time: { created: 60_000 } };
const LATER_ANSWER = { time: { created: 60_001, completed: 60_002 } };

/** The messages of a session, a second apart. */
function messagesOf(...steps: readonly Step[]): Message[] {
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
  const messages = messagesOf(...steps);
  const turn = transcriptOf(messages, messages[0]!);
  return { text: turn.text, end: endOf(turn) };
}

describe('a turn continues', () => {
  test.each<[string, ...Step[]]>([
    [
      'after a compaction that opencode started',
      userMessage('do'),
      step('one'),
      AUTO,
      SUMMARY,
      synthetic('go on'),
      answer('two'),
    ],
    [
      'after a compaction with its last step',
      userMessage('do'),
      answer('one'),
      AUTO,
      SUMMARY,
      synthetic('go on'),
      answer('two'),
    ],
    [
      'under its message that opencode repeats, however late',
      userMessage('do'),
      attempt(''),
      compaction({ auto: true, overflow: true }),
      SUMMARY,
      userMessage('do', LATER),
      answer('one\n\ntwo', LATER_ANSWER),
    ],
    [
      'under a message of opencode between two steps',
      userMessage('do'),
      step('one'),
      synthetic('execute it'),
      answer('two'),
    ],
    [
      'under a message that a person writes while it runs',
      userMessage('do'),
      step('one'),
      userMessage('and'),
      answer('two'),
    ],
  ])('%s', (_, ...steps) => {
    expect(turnOf(...steps)).toEqual({ text: 'one\n\ntwo', end: { kind: 'completed' } });
  });
});

describe('a turn has ended', () => {
  test.each<[string, string, ...Step[]]>([
    [
      'before the next message of a person',
      'completed',
      userMessage('do'),
      answer('one'),
      userMessage('next'),
      answer('two'),
    ],
    [
      'with a refused call, before a later message',
      'completed',
      userMessage('do'),
      step('one'),
      userMessage('next', LATER),
      answer('two', LATER_ANSWER),
    ],
    [
      'when its process was killed, before a later message',
      'interrupted',
      userMessage('do'),
      attempt('one', { time: { created: 1_000 } }),
      userMessage('next'),
      answer('two'),
    ],
    [
      'before a manual compaction, even a failed one',
      'completed',
      userMessage('do'),
      answer('one'),
      MANUAL,
      FAILED_SUMMARY,
    ],
    [
      'before a command that a person runs',
      'completed',
      userMessage('do'),
      answer('one'),
      synthetic('was run'),
      { ...attempt(''), part: { type: 'tool' } },
    ],
    ['with a manual compaction in the middle of it', 'interrupted', userMessage('do'), step('one'), MANUAL, SUMMARY],
    ['with a failed compaction', 'failed', userMessage('do'), step('one'), AUTO, FAILED_SUMMARY],
    ['with a compaction after its last step', 'completed', userMessage('do'), answer('one'), AUTO, SUMMARY],
  ])('%s: %s', (_, end, ...steps) => {
    expect(turnOf(...steps)).toMatchObject({ text: 'one', end: { kind: end } });
  });

  test('as interrupted, not aborted, if it has no text, error or reason', () => {
    expect(turnOf(userMessage('do'), attempt(''))).toMatchObject({ text: '', end: { kind: 'interrupted' } });
  });
});

describe('two messages sent at the same moment', () => {
  test.each([
    [0, 'msg_000000000001u'],
    [1, 'msg_000000000000u'],
  ])('share their answer, and the reason of number %i names the other', (at, other) => {
    const messages = messagesOf(userMessage('one'), userMessage('two'), answer('both'), userMessage('three', LATER));
    const turn = transcriptOf(messages, messages[at]!);
    expect(turn.text).toBe('both');
    expect(endOf(turn)).toEqual({
      kind: 'completed',
      reason: `opencode answered it together with ${other}, sent at the same moment`,
    });
  });

  test('are distinguished from an old unanswered message', () => {
    const messages = messagesOf(userMessage('old'), userMessage('now', LATER), answer('one', LATER_ANSWER));
    expect(endOf(transcriptOf(messages, messages[1]!))).toEqual({ kind: 'completed' });
  });
});

test.each(['length', 'content-filter'])('the result says that an answer was cut: %s', (finish) => {
  const messages = messagesOf(userMessage('do'), answer('half', { finish }));
  expect(endOf(transcriptOf(messages, messages[0]!))).toEqual({
    kind: 'completed',
    reason: expect.stringContaining('its answer is cut') as string,
  });
});

describe('undone messages', () => {
  const queued = 'msg_000000000000z';
  const messages = messagesOf(userMessage('do'), answer('one'), userMessage('queued', { id: queued }), answer('two'));

  test.each<[string, Session['revert'], string[]]>([
    ['all listed from an older queued prompt on', { messageID: queued }, [queued, 'msg_000000000003a']],
    ['all after a message that is partly undone', { messageID: queued, partID: 'prt_1' }, ['msg_000000000003a']],
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
    expect(await lastOf(messagesOf(userMessage('do'), answer('one'), userMessage('then'), answer('two')), revert)).toBe(
      id,
    );
  });

  const OLD = [userMessage('old'), answer('x')];
  const DONE = [userMessage('do'), answer('one')];
  test.each<[string, string | undefined, ...Step[]]>([
    [
      'began before the messages that continue it',
      'msg_000000000002u',
      ...OLD,
      ...DONE,
      AUTO,
      SUMMARY,
      synthetic('go on'),
      answer('two'),
    ],
    ['is the one before a manual compaction', 'msg_000000000000u', ...DONE, MANUAL, SUMMARY],
    [
      'may begin with an answered message that opencode wrote',
      'msg_000000000002u',
      ...DONE,
      synthetic('a task is done'),
      answer('two'),
    ],
    [
      'does not begin with the note of a plugin',
      'msg_000000000000u',
      ...DONE,
      { ...synthetic('pruned'), part: { ignored: true } },
    ],
    ['does not exist without a message of a person', undefined, MANUAL, SUMMARY],
    [
      'is found even if it begins before the last page of messages',
      'msg_000000000002u',
      ...OLD,
      userMessage('do'),
      ...Array.from({ length: 70 }, () => step('x')),
    ],
  ])('%s', async (_, id, ...steps) => {
    expect(await lastOf(messagesOf(...steps))).toBe(id);
  });
});
