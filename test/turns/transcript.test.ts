import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { ServerEvent } from '../../src/opencode/events.ts';
import type { Message } from '../../src/opencode/schema.ts';
import { Transcript } from '../../src/turns/transcript.ts';

const SESSION = 'ses_1';
const USER = 'msg_000000000001user';

interface ScriptedPart {
  readonly kind: 'text' | 'reasoning' | 'synthetic';
  readonly deltas: readonly string[];
}

/** One step of a turn: opencode's event, and the store after it. */
interface Step {
  readonly event: ServerEvent;
  readonly store: readonly Message[];
}

/** The events and store states of a turn, in opencode's order: a part's text reaches the store when the part ends. */
function play(messages: readonly (readonly ScriptedPart[])[], parentID = USER): Step[] {
  const steps: Step[] = [];
  const store: Message[] = [
    {
      info: { id: USER, role: 'user', time: { created: 1 } },
      parts: [{ id: 'prt_u', messageID: USER, type: 'text', text: 'hi' }],
    },
  ];
  const push = (type: string, properties: Record<string, unknown>): void => {
    steps.push({ event: { type, properties: { sessionID: SESSION, ...properties } }, store: structuredClone(store) });
  };
  messages.forEach((parts, m) => {
    const id = `msg_${String(m + 2).padStart(12, '0')}a`;
    const message: Message = { info: { id, role: 'assistant', parentID, time: { created: m + 2 } }, parts: [] };
    store.push(message);
    push('message.updated', { info: structuredClone(message.info) });
    parts.forEach(({ kind, deltas }, p) => {
      const partID = `prt_${m}_${String(p).padStart(3, '0')}`;
      const flags = kind === 'synthetic' ? { synthetic: true } : {};
      const part = { id: partID, messageID: id, type: kind === 'reasoning' ? 'reasoning' : 'text', text: '', ...flags };
      message.parts.push({ ...part, time: { start: 1 } });
      push('message.part.updated', { part: { ...part, time: { start: 1 } } });
      for (const delta of deltas) push('message.part.delta', { messageID: id, partID, field: 'text', delta });
      const ended = { ...part, text: deltas.join(''), time: { start: 1, end: 2 } };
      message.parts[p] = ended;
      push('message.part.updated', { part: structuredClone(ended) });
    });
    const last = m === messages.length - 1;
    message.info = {
      ...message.info,
      time: { created: m + 2, completed: m + 3 },
      finish: last ? 'stop' : 'tool-calls',
    } as never;
    push('message.updated', { info: structuredClone(message.info) });
  });
  return steps;
}

function textOf(messages: readonly (readonly ScriptedPart[])[]): string {
  return messages
    .flat()
    .filter(({ kind, deltas }) => kind === 'text' && deltas.join('') !== '')
    .map(({ deltas }) => deltas.join(''))
    .join('\n\n');
}

test('an end in the events counts although the store lags a moment behind', () => {
  const steps = play([[{ kind: 'text', deltas: ['all'] }]]);
  const transcript = new Transcript(SESSION, USER);
  for (const { event } of steps) transcript.apply(event);
  const store = steps.at(-1)?.store ?? [];
  const answer = store.at(-1)!;
  const info = { ...answer.info, time: { created: answer.info.time.created }, finish: undefined } as Message['info'];
  transcript.reconcile([...store.slice(0, -1), { ...answer, info }]);
  expect([transcript.concluded, transcript.text]).toEqual([true, 'all']);
});

test.each([
  ['the event names its session', (info: object) => ({ sessionID: 'ses_2', info })],
  ['the message names it', (info: object) => ({ info: { ...info, sessionID: 'ses_2' } })],
])('an answer of another session in the same directory is not part of the turn if %s', (_, properties) => {
  const steps = play([[{ kind: 'text', deltas: ['all'] }]]);
  const transcript = new Transcript(SESSION, USER);
  for (const { event, store } of steps) {
    transcript.apply(event);
    transcript.reconcile(store);
  }
  const info = { id: 'msg_999999999999b', role: 'assistant', parentID: 'msg_000000000009user', time: { created: 9 } };
  transcript.apply({ type: 'message.updated', properties: properties(info) });
  expect([transcript.assistants.length, transcript.concluded, transcript.isUnplaced]).toEqual([1, true, false]);
});

const turns = fc.array(
  fc.array(
    fc.record({
      kind: fc.constantFrom<ScriptedPart['kind']>('text', 'text', 'reasoning', 'synthetic'),
      deltas: fc.array(fc.string({ minLength: 1, maxLength: 6 }), { maxLength: 5 }),
    }),
    { maxLength: 3 },
  ),
  { minLength: 1, maxLength: 4 },
);

describe('Transcript', () => {
  test('an unbroken stream gives every character once, in order, and the stored text', () => {
    fc.assert(
      fc.property(turns, (messages) => {
        const transcript = new Transcript(SESSION, USER);
        const shown = play(messages).map(({ event }) => transcript.apply(event));
        expect(shown.join('')).toBe(textOf(messages));
        expect([transcript.text, transcript.concluded]).toEqual([textOf(messages), true]);
      }),
    );
  });

  test('a stream cut anywhere, any number of times, and completed from the store gives every character once', () => {
    fc.assert(
      fc.property(turns, fc.array(fc.tuple(fc.nat(60), fc.nat(10)), { maxLength: 4 }), (messages, cuts) => {
        const transcript = new Transcript(SESSION, USER);
        const steps = play(messages);
        const { store } = steps.at(-1)!;
        let shown = '';
        for (let i = 0; i < steps.length;) {
          const lost = cuts.find(([at]) => at === i)?.[1] ?? 0;
          if (lost > 0) {
            // The store is read at the reconnection.
            i = Math.min(i + lost, steps.length);
            transcript.gap();
            shown += transcript.reconcile(steps[i - 1]!.store);
          } else {
            shown += transcript.apply(steps[i]!.event);
            i += 1;
          }
        }
        shown += transcript.reconcile(store);
        expect([shown, transcript.text]).toEqual([textOf(messages), textOf(messages)]);
        expect(transcript.reconcile(store)).toBe('');
      }),
    );
  });

  test('a running part found in the store stays pending until it ends: its deltas so far are unknown', () => {
    const transcript = new Transcript(SESSION, USER);
    const steps = play([[{ kind: 'text', deltas: ['one ', 'two ', 'three'] }]]);
    transcript.gap();
    expect(transcript.reconcile(steps[2]!.store)).toBe('');
    expect(transcript.textPending).toBe(true);
    expect(transcript.apply(steps[3]!.event)).toBe('');
    expect(transcript.apply(steps[5]!.event)).toBe('one two three');
    expect(transcript.textPending).toBe(false);
  });

  test("another session's and another message's events add nothing", () => {
    const transcript = new Transcript(SESSION, USER);
    const text: ScriptedPart = { kind: 'text', deltas: ['not ours'] };
    const otherMessage = play([[text]], 'msg_000000000000other');
    const otherSession = play([[text]]).flatMap(({ event: { type, properties } }) =>
      type === 'message.part.delta' ? [{ event: { type, properties: { ...properties, sessionID: 'ses_2' } } }] : [],
    );
    expect([...otherMessage, ...otherSession].map(({ event }) => transcript.apply(event)).join('')).toBe('');
    expect(transcript.text).toBe('');
  });

  test('a message stored again after its answer has a later time: the answer still belongs to the turn', () => {
    const [user, ...answer] = play([[{ kind: 'text', deltas: ['ours'] }]]).at(-1)!.store;
    const transcript = new Transcript(SESSION, USER);
    expect(transcript.reconcile([{ ...user!, info: { ...user!.info, time: { created: 99 } } }, ...answer])).toBe(
      'ours',
    );
    expect(transcript.concluded).toBe(true);
  });

  describe('in a flood', () => {
    const ANSWER = 'msg_000000000002a';
    const info = (id: string, parentID = USER): ServerEvent => ({
      type: 'message.updated',
      properties: { sessionID: SESSION, info: { id, role: 'assistant', parentID, time: { created: 2 } } },
    });
    const part = (id: string, fields: object, sessionID = SESSION): ServerEvent => ({
      type: 'message.part.updated',
      properties: { sessionID, part: { id, messageID: ANSWER, type: 'text', text: '', time: { start: 1 }, ...fields } },
    });
    const delta = (partID: string, text: string): ServerEvent => ({
      type: 'message.part.delta',
      properties: { sessionID: SESSION, messageID: ANSWER, partID, field: 'text', delta: text },
    });
    const stored = (parts: readonly { readonly id: string; readonly text: string }[]): Message[] => [
      { info: { id: USER, role: 'user', time: { created: 1 } }, parts: [] },
      {
        info: { id: ANSWER, role: 'assistant', parentID: USER, time: { created: 2, completed: 3 }, finish: 'stop' },
        parts: parts.map((one) => ({ ...one, messageID: ANSWER, type: 'text', time: { start: 1, end: 2 } })),
      },
    ];

    test.each([
      ['small deltas', 10, 500_000],
      ['huge deltas', 1_500_000, 4],
    ])('of %s: keeps a bounded text; the store gives the rest, each character once', (_, chars, count) => {
      const transcript = new Transcript(SESSION, USER);
      transcript.apply(info(ANSWER));
      transcript.apply(part('prt_1', {}));
      let text = '';
      let shown = '';
      for (let index = 0; index < count; index += 1) {
        const piece = String(index).padEnd(chars, '.');
        text += piece;
        shown += transcript.apply(delta('prt_1', piece));
      }
      expect(transcript.text.length).toBeLessThanOrEqual(2 * 1024 * 1024);
      expect(transcript.textPending).toBe(true);
      shown += transcript.reconcile(stored([{ id: 'prt_1', text }]));
      expect(shown === text).toBe(true);
      expect(transcript.text === text).toBe(true);
    });

    test('of parts: keeps a bounded number; parts that the store confirms make room again', () => {
      const transcript = new Transcript(SESSION, USER);
      transcript.apply(info(ANSWER));
      let shown = '';
      const parts = Array.from({ length: 30_000 }, (_, index) => ({
        id: `prt_${String(index).padStart(6, '0')}`,
        text: 'x',
      }));
      for (const { id, text } of parts) shown += transcript.apply(part(id, { text, time: { start: 1, end: 2 } }));
      expect(transcript.text.length).toBeLessThan(40_000);
      shown += transcript.reconcile(stored(parts));
      expect(shown).toBe(parts.map(({ text }) => text).join('\n\n'));
      expect(transcript.apply(part('prt_9', { text: 'later', time: { start: 1, end: 2 } }))).toBe('\n\nlater');
    });

    test('of other sessions and of reasoning: takes no room from the answer', () => {
      const transcript = new Transcript(SESSION, USER);
      transcript.apply(info(ANSWER));
      for (let index = 0; index < 100; index += 1) {
        transcript.apply(part(`prt_other_${index}`, { text: 'x'.repeat(100_000) }, 'ses_other'));
        transcript.apply(part(`prt_thought_${index}`, { type: 'reasoning' }));
        transcript.apply(delta(`prt_thought_${index}`, 'x'.repeat(100_000)));
      }
      transcript.apply(part('prt_ours', {}));
      expect(transcript.apply(delta('prt_ours', 'x'.repeat(1_900_000)))).toHaveLength(1_900_000);
    });

    test('of messages: keeps a bounded number', () => {
      const transcript = new Transcript(SESSION, USER);
      for (let index = 0; index < 5_000; index += 1) transcript.apply(info(`msg_${index}`));
      expect(transcript.assistants).toHaveLength(1_000);
    });
  });
});
