import { expect, test } from 'vitest';

import type { ServerEvent } from '../../src/opencode/events.ts';
import type { Message, Part } from '../../src/opencode/schema.ts';
import { LiveMessages } from '../../src/page/session/live-messages.ts';

const SESSION = 'ses_1';
const user: Message = {
  info: { id: 'msg_1', role: 'user', time: { created: 1 } },
  parts: [{ id: 'prt_1', messageID: 'msg_1', type: 'text', text: 'go on' }],
};
const info = { id: 'msg_2', role: 'assistant', parentID: 'msg_1', time: { created: 2 } } as const;
const partialText = (text: string): Part => ({ id: 'prt_2', messageID: 'msg_2', type: 'text', text });
const completeText = (text: string): Part => ({ ...partialText(text), time: { start: 2, end: 3 } });

function event(type: string, properties: Readonly<Record<string, unknown>>): ServerEvent {
  return { type, properties: { sessionID: SESSION, ...properties } };
}
const delta = (text: string): ServerEvent =>
  event('message.part.delta', { messageID: 'msg_2', partID: 'prt_2', field: 'text', delta: text });

function open(...messages: readonly Message[]): LiveMessages {
  const live = new LiveMessages(SESSION);
  live.replace([user, ...messages]);
  return live;
}

const textsOf = (live: LiveMessages): readonly string[] =>
  live.views.flatMap(({ parts }) => parts.map(({ text }) => text));

test('each delta of a text is sent once, as a delta', () => {
  const live = open({ info, parts: [partialText('')] });
  for (const piece of ['Hel', 'lo']) live.apply(delta(piece));
  expect(live.take()).toEqual([{ kind: 'text', message: 'msg_2', part: 'prt_2', text: 'Hello' }]);
  expect(live.take()).toEqual([]);
  // The store has no text of a part that is being written.
  live.reconcile([{ info, parts: [partialText('')] }]);
  expect(live.take()).toEqual([]);
  expect(textsOf(live)).toEqual(['go on', 'Hello']);
  live.apply(event('message.part.updated', { part: completeText('Hello!') }));
  expect(live.take()).toMatchObject([{ kind: 'message', message: { id: 'msg_2', parts: [{ text: 'Hello!' }] } }]);
  // A late delta adds nothing.
  live.apply(delta('lo'));
  expect(textsOf(live)).toEqual(['go on', 'Hello!']);
});

test('earlier text is marked as missing until the whole text is known', () => {
  const live = open({ info, parts: [] });
  live.apply(delta('lo'));
  expect(live.take()).toMatchObject([{ kind: 'message', message: { parts: [{ text: '… lo' }] } }]);
  live.reconcile([{ info: { ...info, time: { created: 2, completed: 3 } }, parts: [completeText('Hello')] }]);
  expect(live.take()).toMatchObject([{ kind: 'message', message: { done: true, parts: [{ text: 'Hello' }] } }]);
});

test('changes of hidden parts are not sent', () => {
  const live = open({ info, parts: [completeText('Hello')] });
  live.apply(event('message.updated', { info: { ...info, tokens: { input: 5 } } }));
  live.apply(event('message.part.updated', { part: { id: 'prt_3', messageID: 'msg_2', type: 'step-finish' } }));
  expect(live.take()).toEqual([]);
});

test('an escape sequence that is split over two deltas is removed', () => {
  const live = open({ info, parts: [partialText('')] });
  live.apply(delta('a\u001b[3'));
  live.apply(delta('1mb'));
  expect(live.take()).toMatchObject([{ text: 'ab' }]);
});

test('other sessions’ messages and parts of unknown messages add nothing', () => {
  const live = open({ info, parts: [] });
  const foreign = { sessionID: 'ses_other' };
  live.apply(event('message.updated', { ...foreign, info: { ...info, id: 'msg_9' } }));
  live.apply({ type: 'message.part.delta', properties: { ...delta('x').properties, ...foreign } });
  live.apply(event('message.part.updated', { ...foreign, part: completeText('x') }));
  live.apply(event('message.part.updated', { part: { ...completeText('x'), messageID: 'msg_9' } }));
  expect(live.take()).toEqual([]);
});

test('only the newest messages are kept', () => {
  const live = open();
  for (let number = 1; number <= 400; number += 1)
    live.apply(event('message.updated', { info: { ...user.info, id: `msg_x${number}` } }));
  expect(live.views).toHaveLength(300);
  expect(live.views.at(-1)?.id).toBe('msg_x400');
  expect(live.take()).toHaveLength(300);
});
