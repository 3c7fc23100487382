import { describe, expect, onTestFinished, test } from 'vitest';

import { MAX_BODY_BYTES } from '../../src/http/exchange.ts';
import { opencode2Api } from '../../src/opencode/dialects/opencode-2/opencode-2.ts';
import { EventReader } from '../../src/opencode/dialects/opencode-2/events.ts';
import { formAnswer } from '../../src/opencode/dialects/opencode-2/forms.ts';
import { messagesOf, permissionOf, questionOf } from '../../src/opencode/dialects/opencode-2/messages.ts';
import {
  type WireField,
  wireFormSchema,
  type WireMessage,
  wireMessageSchema,
} from '../../src/opencode/dialects/opencode-2/wire.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { Transcript } from '../../src/turns/transcript.ts';

const entry = (type: string, at: number, more: Partial<WireMessage> = {}): WireMessage => ({
  id: `msg_${String(at).padStart(4, '0')}`,
  type,
  time: { created: at },
  ...more,
});
const text = (words: string): NonNullable<WireMessage['content']>[number] => ({ type: 'text', text: words });

describe('entries of a session', () => {
  const user = entry('user', 1, { text: 'do it' });

  test('entries after a prompt are its answer', () => {
    const answer = entry('assistant', 2, {
      content: [text('one'), { type: 'tool', name: 'shell', state: { status: 'running', input: { command: 'ls' } } }],
    });
    const [asked, answered] = messagesOf([user, answer]);
    expect(asked).toMatchObject({ info: { role: 'user' }, parts: [{ type: 'text', text: 'do it' }] });
    expect(answered).toMatchObject({
      info: { role: 'assistant', parentID: user.id },
      parts: [
        { type: 'text', text: 'one', time: { end: 2 } },
        { type: 'tool', tool: 'shell', state: { status: 'running', input: { command: 'ls' } } },
      ],
    });
  });

  test('an empty text of an unfinished message has not ended', () => {
    const [, answered] = messagesOf([user, entry('assistant', 2, { content: [text('')] })]);
    expect(answered?.parts[0]?.time).toBeUndefined();
  });

  test.each([
    ['succeeded', undefined, { time: { completed: 9 }, finish: 'stop' }],
    ['interrupted', undefined, { error: { name: 'MessageAbortedError' } }],
    ['failed', { type: 'provider', message: 'no key' }, { error: { name: 'provider', data: { message: 'no key' } } }],
  ])('an idle entry ends an open answer: %s', (outcome, error, info) => {
    const open = entry('assistant', 2, { content: [text('so')] });
    const messages = messagesOf([user, open, entry('idle', 9, { outcome, error })]);
    expect(messages).toHaveLength(2);
    expect(messages[1]?.info).toMatchObject(info);
  });

  test('an interruption before the first word is an answer without text', () => {
    const [, aborted] = messagesOf([user, entry('idle', 9, { outcome: 'interrupted' })]);
    expect(aborted).toMatchObject({ info: { role: 'assistant', error: { name: 'MessageAbortedError' } }, parts: [] });
  });

  test('a success without an answer is a completed one without text', () => {
    const messages = messagesOf([user, entry('idle', 9, { outcome: 'succeeded' })]);
    expect(messages).toMatchObject([{}, { info: { parentID: user.id, finish: 'stop', time: { completed: 9 } } }]);
    expect(messagesOf([entry('idle', 9, { outcome: 'succeeded' })])).toEqual([]);
  });

  test('a compaction is answered by its summary once it has ended', () => {
    const compacted = (status: string, more = {}): unknown[] =>
      messagesOf([user, entry('compaction', 3, { reason: 'manual', status, ...more })])
        .slice(2)
        .map(({ info }) => info);
    expect(compacted('running')).toEqual([]);
    expect(compacted('completed')).toMatchObject([{ role: 'assistant', summary: true, time: { completed: 3 } }]);
    const error = { type: 'provider', message: 'no key' };
    expect(compacted('failed', { error })).toMatchObject([{ error: { name: 'provider' } }]);
  });

  test('an idle entry does not change an ended answer', () => {
    const done = entry('assistant', 2, { finish: 'length', time: { created: 2, completed: 3 } });
    const messages = messagesOf([user, done, entry('idle', 9, { outcome: 'succeeded' })]);
    expect(messages[1]?.info).toMatchObject({ finish: 'length', time: { completed: 3 } });
  });

  test('a queued prompt comes after the answers ahead of it, whatever its time', () => {
    const entries = [user, entry('assistant', 5), entry('user', 2, { text: 'queued' }), entry('assistant', 6)];
    const times = messagesOf(entries).map(({ info }) => info.time.created);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
  });

  test('entries of opencode itself are synthetic, and unknown ones are left out', () => {
    const put = ['synthetic', 'system', 'skill'].map((type, index) => entry(type, 2 + index, { text: 'x' }));
    const messages = messagesOf([user, ...put, entry('model-switched', 8), entry('of-tomorrow', 9)]);
    expect(messages.slice(1).map(({ parts }) => parts[0]?.synthetic)).toEqual([true, true, true]);
    const [, compaction] = messagesOf([user, entry('compaction', 3, { reason: 'auto', summary: 'short' })]);
    expect(compaction?.parts[0]).toMatchObject({ type: 'compaction', auto: true });
  });
});

describe('types of a later version', () => {
  test('an unknown entry or content hides no other', () => {
    const raw = [
      { id: 'tm-1', type: 'of-tomorrow', time: 'never', text: { as: 'an object' } },
      {
        id: 'msg_2',
        type: 'assistant',
        time: { created: 2, completed: 3 },
        content: [text('said'), { type: 'hologram', text: 7, name: {}, state: 'on' }],
      },
    ];
    const [answer, ...others] = messagesOf(raw.map((one) => wireMessageSchema.parse(one)));
    expect(others).toEqual([]);
    expect(answer?.parts).toMatchObject([{ text: 'said' }, { type: 'hologram' }]);
  });

  test('an unknown field is shown with its form, and cannot be answered here', () => {
    const form = wireFormSchema.parse({
      id: 'frm_1',
      sessionID: 'ses_1',
      fields: [
        { key: 'name', type: 'string', title: 'Name' },
        { key: 'hue', type: 'color', title: 'Hue', required: true, options: [{ hex: '#f00' }], minItems: 'two' },
      ],
    });
    expect(questionOf(form).questions).toMatchObject([{ question: 'Name' }, { question: 'Hue', options: [] }]);
    const problem = expect.stringContaining('field 2, "Hue", can be answered only in that opencode') as string;
    expect(formAnswer(form.fields, [['Ada'], []])).toEqual({ problem });
    expect(formAnswer(form.fields, [['Ada'], ['red']])).toEqual({ problem });
  });

  test('known types are checked', () => {
    const broken = { id: 'msg_1', type: 'user', time: { created: 1 }, text: 7 };
    expect(wireMessageSchema.safeParse(broken).success).toBe(false);
  });
});

test('a shell command has one permission name for both generations', () => {
  const base = { id: 'per_1', sessionID: 'ses_1', resources: ['rm x'] };
  for (const action of ['bash', 'shell']) expect(permissionOf({ ...base, action }).permission).toBe('bash');
  expect(permissionOf({ ...base, action: 'edit', save: ['*'] })).toMatchObject({ permission: 'edit', always: ['*'] });
});

describe('a form', () => {
  const field = (more: object): WireField =>
    wireFormSchema.parse({ id: 'frm_1', sessionID: 'ses_1', fields: [{ key: 'k', ...more }] }).fields[0] as WireField;
  const answer = (more: object, given: readonly string[]) => formAnswer([field(more)], [given]);
  const options = [
    { value: 'eu-1', label: 'Europe' },
    { value: 'us-1', label: 'America' },
  ];

  test.each([
    [{ type: 'string' }, ['words'], 'words'],
    [{ type: 'string', options }, ['Europe'], 'eu-1'],
    [{ type: 'string', options }, ['europe'], 'eu-1'],
    [{ type: 'string', options }, ['us-1'], 'us-1'],
    [{ type: 'number' }, [' 1.5 '], 1.5],
    [{ type: 'integer', minimum: 0 }, ['0'], 0],
    [{ type: 'boolean' }, ['No'], false],
    [{ type: 'boolean' }, ['true'], true],
    [{ type: 'multiselect', options }, ['Europe', 'America'], ['eu-1', 'us-1']],
  ])('%j takes %j', (more, given, value) => {
    expect(answer(more, given)).toEqual({ answer: { k: value } });
  });

  test.each([
    [{ type: 'number' }, ['1e999'], 'a number'],
    [{ type: 'number' }, [''], 'a number'],
    [{ type: 'integer' }, ['1.5'], 'a whole number'],
    [{ type: 'integer', maximum: 3 }, ['4'], 'a whole number of 3 or less'],
    [{ type: 'number', minimum: 2 }, ['1'], 'a number of 2 or more'],
    [{ type: 'boolean' }, ['perhaps'], 'Yes or No'],
    [{ type: 'string', minLength: 3 }, ['no'], 'at least 3 characters'],
    [{ type: 'string', maxLength: 3 }, ['four'], 'at most 3 characters'],
    [{ type: 'multiselect', options, minItems: 2 }, ['Europe'], 'at least 2 choices'],
    [{ type: 'multiselect', options, maxItems: 1 }, ['Europe', 'America'], 'at most 1 choices'],
    [{ type: 'string', options, custom: false }, ['Asia'], '"Europe" or "America"'],
    [{ type: 'multiselect', options, custom: false }, ['Europe', 'Asia'], '"Europe" or "America"'],
  ])('%j does not take %j', (more, given, expected) => {
    expect(answer(more, given)).toEqual({ problem: expect.stringContaining(`takes ${expected}, not`) });
  });

  describe('a conditional field', () => {
    const { fields, ...form } = wireFormSchema.parse({
      id: 'frm_1',
      sessionID: 'ses_1',
      fields: [
        { key: 'where', type: 'string', title: 'Where', required: true, options },
        {
          key: 'zone',
          type: 'string',
          title: 'Zone',
          required: true,
          when: [{ key: 'where', op: 'eq', value: 'eu-1' }],
        },
        { key: 'why', type: 'string', when: [{ key: 'zone', op: 'neq', value: 'a' }] },
      ],
    });

    test('names its condition, and is optional', () => {
      const { questions } = questionOf({ ...form, fields });
      expect(questions[1]).toMatchObject({ question: 'Zone (only if Where is Europe)', optional: true });
      expect(questions[2]?.question).toBe('why (only if Zone is not a)');
    });

    test.each([
      [[['America'], [], ['far']], { answer: { where: 'us-1', why: 'far' } }],
      [[['Europe'], ['a'], []], { answer: { where: 'eu-1', zone: 'a' } }],
      [[['Europe'], [], []], { problem: 'field 2, "Zone", needs an answer' }],
      [
        [['America'], ['a'], []],
        { problem: 'field 2, "Zone", is not asked (only if Where is Europe); give [] for it' },
      ],
    ])('%j', (given, made) => {
      expect(formAnswer(fields, given)).toEqual(made);
    });
  });

  test('an external field shows its URL, and takes no answer', () => {
    const external = field({ type: 'external', title: 'Log in', url: 'https://example.com' });
    const { questions } = questionOf({ id: 'frm_1', sessionID: 'ses_1', title: 'x', fields: [external] });
    expect(questions).toMatchObject([{ question: 'Log in: https://example.com', optional: true }]);
    expect(formAnswer([external], [[]])).toEqual({ answer: {} });
    expect(formAnswer([external], [['done']])).toEqual({ problem: expect.stringContaining('only in that opencode') });
  });

  test('required fields need an answer, others do not', () => {
    expect(answer({ type: 'string', required: true }, [])).toEqual({ problem: expect.stringContaining('needs') });
    expect(answer({ type: 'string' }, [])).toEqual({ answer: {} });
  });
});

test('none of many active sessions looks idle, and a bounded number is asked', async () => {
  const ids = Array.from({ length: 70 }, (_, index) => `ses_${index}`);
  let asked = 0;
  const { url, close } = await listenHttp((request, response) => {
    asked += 1;
    const id = request.url?.split('/')[3];
    const session = { id, location: { directory: '/a' }, time: { created: 1, updated: 1 } };
    const data = id === 'active' ? Object.fromEntries(ids.map((one) => [one, { type: 'running' }])) : session;
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ data: request.url?.includes('/message') ? [] : data }));
  });
  try {
    const endpoint = { url, route: 'loopback' } as const;
    const statuses = await opencode2Api({ endpoint }, 'opencode-2').statuses('/a');
    expect([...statuses.keys()]).toEqual(ids);
    expect(asked).toBe(1 + 2 * 64);
  } finally {
    await close();
  }
});

test('a page behind a large message is not empty', async () => {
  const asked: number[] = [];
  const all = [
    { id: 'msg_2', type: 'idle', time: { created: 3 }, outcome: 'succeeded' },
    { id: 'msg_1', type: 'user', time: { created: 1 }, text: 'large' },
  ];
  const { url, close } = await listenHttp((request, response) => {
    const { searchParams } = new URL(request.url ?? '/', 'http://localhost');
    const limit = Number(searchParams.get('limit'));
    const from = Number(searchParams.get('cursor') ?? 0);
    asked.push(limit);
    response.writeHead(200, { 'content-type': 'application/json' });
    const padding = limit > 1 ? 'x'.repeat(MAX_BODY_BYTES) : '';
    const cursor = { next: from + limit < all.length ? String(from + limit) : undefined };
    response.end(JSON.stringify({ data: all.slice(from, from + limit), cursor, padding }));
  });
  try {
    const endpoint = { url, route: 'loopback' } as const;
    const { messages } = await opencode2Api({ endpoint }, 'opencode-2').messages('ses_1', { limit: 8 });
    expect(messages.map(({ info }) => info.id)).toEqual(['msg_1', 'msg_2']);
    // What was too large once is not asked for again.
    expect(asked).toEqual([8, 1, 1]);
  } finally {
    await close();
  }
});

describe('events', () => {
  const SESSION = 'ses_1';
  const read = (reader: EventReader, type: string, data: object) =>
    reader.read({ id: 'evt_1', type, created: 5, data: { sessionID: SESSION, ...data } }, 10);

  /** What a turn says, by events alone. */
  const said = (prefix: string, key: object): string => {
    const reader = new EventReader();
    const transcript = new Transcript(SESSION, 'msg_1');
    const told = (type: string, data: object): string =>
      read(reader, `${prefix}${type}`, data)
        .map((event) => transcript.apply(event))
        .join('');
    const answer = { assistantMessageID: 'msg_2', ...key };
    return [
      told(prefix === 'session.' ? 'inbox.delivered' : 'prompted', { messageID: 'msg_1', inboxID: 'msg_1' }),
      told('step.started', { ...answer, timestamp: 5 }),
      told('text.started', answer),
      told('text.delta', { ...answer, delta: 'one ' }),
      told('text.delta', { ...answer, delta: 'two' }),
      told('text.ended', { ...answer, text: 'one two' }),
    ].join('');
  };

  test('of text deltas of both generations make the text once', () => {
    expect(said('session.', { ordinal: 0 })).toBe('one two');
    expect(said('session.next.', { textID: 'text-0' })).toBe('one two');
  });

  test('of a text whose start was missed only touch the session', () => {
    const events = read(new EventReader(), 'session.text.delta', {
      assistantMessageID: 'msg_2',
      ordinal: 0,
      delta: 'x',
    });
    expect(events).toMatchObject([{ type: 'session.touched', properties: { sessionID: SESSION } }]);
  });

  test.each([
    ['session.execution.succeeded', {}, undefined],
    ['session.execution.interrupted', { reason: 'user' }, 'interrupted'],
    ['session.execution.interrupted', { reason: 'superseded' }, 'interrupted'],
    ['session.next.step.failed', { error: { type: 'unknown', message: 'Provider turn interrupted' } }, 'interrupted'],
    ['session.next.step.failed', { error: { type: 'unknown', message: 'HTTP 401' } }, undefined],
    ['session.next.step.ended', { finish: 'stop' }, undefined],
  ])('%s %j may end the turn', (type, data, outcome) => {
    const idle = read(new EventReader(), type, { assistantMessageID: 'msg_2', ...data }).find(
      (event) => event.type === 'session.idle',
    );
    expect(idle?.properties['outcome']).toBe(outcome);
    expect(idle).toBeDefined();
  });

  test('of a stopping service do not end the turn', () => {
    const events = read(new EventReader(), 'session.execution.interrupted', { reason: 'shutdown' });
    expect(events.map(({ type }) => type)).toEqual(['session.touched']);
  });

  test('of a step with a tool call do not end the turn', () => {
    const events = read(new EventReader(), 'session.step.ended', { assistantMessageID: 'msg_2', finish: 'tool-calls' });
    expect(events.some(({ type }) => type === 'session.idle')).toBe(false);
  });

  test.each([null, 7, {}, { type: 7 }, { type: 'session.text.delta' }, { type: 'form.created', data: { form: {} } }])(
    '%j is none',
    (value) => {
      expect(new EventReader().read(value, 1)).toEqual([]);
    },
  );
});

test('renaming a session that is gone is a 404', async () => {
  const { url, close } = await listenHttp((_, response) => response.writeHead(404).end());
  onTestFinished(close);
  const api = opencode2Api({ endpoint: { url, route: 'loopback' } }, 'opencode-2');
  await expect(api.rename('ses_gone', 'A name')).rejects.toMatchObject({ kind: 'status', status: 404 });
});
