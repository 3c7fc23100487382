import type { RequestListener, ServerResponse } from 'node:http';

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

const entry = (type: string, createdMs: number, fields: Partial<WireMessage> = {}): WireMessage => ({
  id: `msg_${String(createdMs).padStart(4, '0')}`,
  type,
  time: { created: createdMs },
  ...fields,
});
const textContent = (words: string): NonNullable<WireMessage['content']>[number] => ({ type: 'text', text: words });

describe('entries of a session', () => {
  const user = entry('user', 1, { text: 'do it' });

  test('entries after a prompt are its answer', () => {
    const answer = entry('assistant', 2, {
      content: [
        textContent('one'),
        { type: 'tool', name: 'shell', state: { status: 'running', input: { command: 'ls' } } },
      ],
    });
    const [prompt, reply] = messagesOf([user, answer]);
    expect(prompt).toMatchObject({ info: { role: 'user' }, parts: [{ type: 'text', text: 'do it' }] });
    expect(reply).toMatchObject({
      info: { role: 'assistant', parentID: user.id },
      parts: [
        { type: 'text', text: 'one', time: { end: 2 } },
        { type: 'tool', tool: 'shell', state: { status: 'running', input: { command: 'ls' } } },
      ],
    });
  });

  test('an empty text of an unfinished message has not ended', () => {
    const [, reply] = messagesOf([user, entry('assistant', 2, { content: [textContent('')] })]);
    expect(reply?.parts[0]?.time).toBeUndefined();
  });

  test.each([
    ['succeeded', undefined, { time: { completed: 9 }, finish: 'stop' }],
    ['interrupted', undefined, { error: { name: 'MessageAbortedError' } }],
    ['failed', { type: 'provider', message: 'no key' }, { error: { name: 'provider', data: { message: 'no key' } } }],
  ])('an idle entry ends an open answer: %s', (outcome, error, info) => {
    const open = entry('assistant', 2, { content: [textContent('so')] });
    const messages = messagesOf([user, open, entry('idle', 9, { outcome, error })]);
    expect(messages).toHaveLength(2);
    expect(messages[1]?.info).toMatchObject(info);
  });

  test('an interruption before the first word is an answer without text', () => {
    const [, aborted] = messagesOf([user, entry('idle', 9, { outcome: 'interrupted' })]);
    expect(aborted).toMatchObject({ info: { role: 'assistant', error: { name: 'MessageAbortedError' } }, parts: [] });
  });

  test('a success without an answer is a completed answer without text', () => {
    const messages = messagesOf([user, entry('idle', 9, { outcome: 'succeeded' })]);
    expect(messages).toMatchObject([{}, { info: { parentID: user.id, finish: 'stop', time: { completed: 9 } } }]);
    expect(messagesOf([entry('idle', 9, { outcome: 'succeeded' })])).toEqual([]);
  });

  test('a compaction is answered by its summary once it has ended', () => {
    const summariesOf = (status: string, more = {}): unknown[] =>
      messagesOf([user, entry('compaction', 3, { reason: 'manual', status, ...more })])
        .slice(2)
        .map(({ info }) => info);
    expect(summariesOf('running')).toEqual([]);
    expect(summariesOf('completed')).toMatchObject([{ role: 'assistant', summary: true, time: { completed: 3 } }]);
    const error = { type: 'provider', message: 'no key' };
    expect(summariesOf('failed', { error })).toMatchObject([{ error: { name: 'provider' } }]);
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

  test('entries that opencode adds are synthetic, and unknown entries are left out', () => {
    const added = ['synthetic', 'system', 'skill'].map((type, index) => entry(type, 2 + index, { text: 'x' }));
    const messages = messagesOf([user, ...added, entry('model-switched', 8), entry('of-tomorrow', 9)]);
    expect(messages.slice(1).map(({ parts }) => parts[0]?.synthetic)).toEqual([true, true, true]);
    const [, compaction] = messagesOf([user, entry('compaction', 3, { reason: 'auto', summary: 'short' })]);
    expect(compaction?.parts[0]).toMatchObject({ type: 'compaction', auto: true });
  });
});

describe('types of a later version', () => {
  test('an unknown entry or content does not hide the others', () => {
    const raw = [
      { id: 'tm-1', type: 'of-tomorrow', time: 'never', text: { as: 'an object' } },
      {
        id: 'msg_2',
        type: 'assistant',
        time: { created: 2, completed: 3 },
        content: [textContent('said'), { type: 'hologram', text: 7, name: {}, state: 'on' }],
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

  test('a known type with an invalid field is rejected', () => {
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
  const answerField = (more: object, values: readonly string[]) => formAnswer([field(more)], [values]);
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
  ])('%j takes %j', (more, values, value) => {
    expect(answerField(more, values)).toEqual({ answer: { k: value } });
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
  ])('%j does not take %j', (more, values, expected) => {
    expect(answerField(more, values)).toEqual({ problem: expect.stringContaining(`takes ${expected}, not`) });
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

    test('states its condition and is optional', () => {
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
    ])('answers %j', (answers, expected) => {
      expect(formAnswer(fields, answers)).toEqual(expected);
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
    expect(answerField({ type: 'string', required: true }, [])).toEqual({ problem: expect.stringContaining('needs') });
    expect(answerField({ type: 'string' }, [])).toEqual({ answer: {} });
  });
});

async function apiOf(handler: RequestListener) {
  const { url, close } = await listenHttp(handler);
  onTestFinished(close);
  return opencode2Api({ endpoint: { url, route: 'loopback' } }, 'opencode-2');
}

function sendJson(response: ServerResponse, body: object): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

test('all of many active sessions are listed as active, and only 64 of them are requested', async () => {
  const ids = Array.from({ length: 70 }, (_, index) => `ses_${index}`);
  let requests = 0;
  const api = await apiOf(({ url = '' }, response) => {
    requests += 1;
    const id = url.split('/')[3];
    const session = { id, location: { directory: '/a' }, time: { created: 1, updated: 1 } };
    const data = id === 'active' ? Object.fromEntries(ids.map((one) => [one, { type: 'running' }])) : session;
    sendJson(response, { data: url.includes('/message') ? [] : data });
  });
  expect([...(await api.statuses('/a')).keys()]).toEqual(ids);
  expect(requests).toBe(1 + 2 * 64);
});

test('a page with a large message is requested again with a smaller limit', async () => {
  const limits: number[] = [];
  const all = [
    { id: 'msg_2', type: 'idle', time: { created: 3 }, outcome: 'succeeded' },
    { id: 'msg_1', type: 'user', time: { created: 1 }, text: 'large' },
  ];
  const api = await apiOf((request, response) => {
    const { searchParams } = new URL(request.url ?? '/', 'http://localhost');
    const limit = Number(searchParams.get('limit'));
    const from = Number(searchParams.get('cursor') ?? 0);
    limits.push(limit);
    const padding = limit > 1 ? 'x'.repeat(MAX_BODY_BYTES) : '';
    const cursor = { next: from + limit < all.length ? String(from + limit) : undefined };
    sendJson(response, { data: all.slice(from, from + limit), cursor, padding });
  });
  const { messages } = await api.messages('ses_1', { limit: 8 });
  expect(messages.map(({ info }) => info.id)).toEqual(['msg_1', 'msg_2']);
  // A limit that was too large once is not used again.
  expect(limits).toEqual([8, 1, 1]);
});

test('renaming a deleted session fails with status 404', async () => {
  const api = await apiOf((_, response) => response.writeHead(404).end());
  await expect(api.rename('ses_gone', 'A name')).rejects.toMatchObject({ kind: 'status', status: 404 });
});

describe('events', () => {
  const SESSION = 'ses_1';
  const read = (reader: EventReader, type: string, data: object) =>
    reader.read({ id: 'evt_1', type, created: 5, data: { sessionID: SESSION, ...data } }, 10);

  test.each([
    ['session.', 'inbox.delivered', { ordinal: 0 }],
    ['session.next.', 'prompted', { textID: 'text-0' }],
  ])('the text deltas of %s events add up to the text, without repeats', (prefix, delivered, key) => {
    const reader = new EventReader();
    const transcript = new Transcript(SESSION, 'msg_1');
    const answer = { assistantMessageID: 'msg_2', ...key };
    const events: [type: string, data: object][] = [
      [delivered, { messageID: 'msg_1', inboxID: 'msg_1' }],
      ['step.started', { ...answer, timestamp: 5 }],
      ['text.started', answer],
      ['text.delta', { ...answer, delta: 'one ' }],
      ['text.delta', { ...answer, delta: 'two' }],
      ['text.ended', { ...answer, text: 'one two' }],
    ];
    const text = events
      .flatMap(([type, data]) => read(reader, prefix + type, data))
      .map((event) => transcript.apply(event))
      .join('');
    expect(text).toBe('one two');
  });

  test('a text delta without a known start is read only as a change of the session', () => {
    const delta = { assistantMessageID: 'msg_2', ordinal: 0, delta: 'x' };
    expect(read(new EventReader(), 'session.text.delta', delta)).toMatchObject([
      { type: 'session.touched', properties: { sessionID: SESSION } },
    ]);
  });

  test.each([
    ['session.execution.succeeded', {}, [undefined]],
    ['session.execution.interrupted', { reason: 'user' }, ['interrupted']],
    ['session.execution.interrupted', { reason: 'superseded' }, ['interrupted']],
    ['session.next.step.failed', { error: { type: 'unknown', message: 'Provider turn interrupted' } }, ['interrupted']],
    ['session.next.step.failed', { error: { type: 'unknown', message: 'HTTP 401' } }, [undefined]],
    ['session.next.step.ended', { finish: 'stop' }, [undefined]],
    // These do not end a turn: the service stops, or the turn continues after a tool call.
    ['session.execution.interrupted', { reason: 'shutdown' }, []],
    ['session.step.ended', { finish: 'tool-calls' }, []],
  ])('%s %j ends the turn with the outcome %j', (type, data, outcomes) => {
    const events = read(new EventReader(), type, { assistantMessageID: 'msg_2', ...data });
    const ends = events.filter((event) => event.type === 'session.idle');
    expect(ends.map(({ properties }) => properties['outcome'])).toEqual(outcomes);
  });

  test.each([null, 7, {}, { type: 7 }, { type: 'session.text.delta' }, { type: 'form.created', data: { form: {} } }])(
    '%j is not read as an event',
    (value) => {
      expect(new EventReader().read(value, 1)).toEqual([]);
    },
  );
});
