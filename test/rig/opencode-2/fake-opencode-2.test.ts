import { readFile, stat } from 'node:fs/promises';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { expectedReply } from '../model-script.ts';
import { tempDir } from '../temp.ts';
import { until, within } from '../wait.ts';
import { tapServerEvents, type ServerEvent, type ServerEventTap } from './event-tap.ts';
import { startFakeOpencode2, type FakeOpencode2 } from './fake-opencode-2.ts';
import type { Message } from './store.ts';
import { RESUMED_REPLY } from './turns.ts';

const DIRECTORY = '/home/user/project';

let fake: FakeOpencode2;
let tap: ServerEventTap;

beforeEach(async () => {
  fake = await startFakeOpencode2({
    directories: { [DIRECTORY]: { 'README.md': '# A project\n', 'src/main.ts': 'main();\n' }, '/home/user/other': {} },
  });
  tap = await tapServerEvents(fake);
});
afterEach(async () => {
  await tap.close();
  await fake.close();
});

const open = async (directory = DIRECTORY): Promise<string> =>
  (await fake.json<{ data: { id: string } }>('POST', '/api/session', { location: { directory } })).data.id;
const prompt = (session: string, text: string, extra: object = {}): Promise<Response> =>
  fake.api(`/api/session/${session}/prompt`, { method: 'POST', body: { text, delivery: 'queue', ...extra } });
/** Also waits until an open stream has brought all events. */
const idle = async (session: string): Promise<void> => {
  await fake.api(`/api/experimental/session/${session}/wait`, { method: 'POST' });
  const { log } = fake.session(session);
  const last = log.at(-1)?.id;
  if (fake.streams > 0) await until('the last event', () => tap.events.some(({ id }) => id === last));
};
const interrupt = (session: string): Promise<unknown> => fake.json('POST', `/api/session/${session}/interrupt`);
const active = async (): Promise<string[]> =>
  Object.keys((await fake.json<{ data: object }>('GET', '/api/session/active')).data);
const messages = async (session: string): Promise<Message[]> =>
  (await fake.json<{ data: Message[] }>('GET', `/api/session/${session}/message?order=asc`)).data;
const told = async (session: string): Promise<unknown[]> =>
  (await messages(session)).map((message) => {
    if (message.type === 'idle') return `idle ${String(message['outcome'])}`;
    return message.type === 'user' ? message['text'] : textOf(message);
  });
const textOf = (message: Message | undefined): string =>
  (message?.content ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');
/** Without repetitions: deltas come in as many pieces as the model made. */
const types = (events: readonly ServerEvent[]): string[] =>
  events.map(({ type }) => type.replace('session.', '')).filter((type, index, all) => all[index - 1] !== type);
const asked = async (session: string): Promise<string> => {
  const event = await tap.waitFor('permission.asked', ({ data }) => data.sessionID === session);
  return `/api/session/${session}/permission/${String(event.data['id'])}`;
};

describe('a turn on the fake of OpenCode 2.1', () => {
  it('publishes the events of a text in order, with a seq for durable ones', async () => {
    const session = await open();
    const answer = await prompt(session, 'echo: one two', { id: 'msg_1' });
    expect(await answer.json()).toMatchObject({
      data: { id: 'msg_1', sessionID: session, type: 'user', payload: { text: 'echo: one two' }, delivery: 'queue' },
    });
    await idle(session);
    expect(types(tap.of(session))).toEqual([
      'created',
      'inbox.enqueued',
      'execution.started',
      'inbox.delivered',
      'step.started',
      'text.started',
      'text.delta',
      'text.ended',
      'step.streamed',
      'step.ended',
      'execution.succeeded',
    ]);
    const durable = tap.of(session).filter((event) => event.durable);
    expect(durable.map((event) => event.durable?.seq)).toEqual(durable.map((_, index) => index));
    expect(tap.of(session).every(({ location }) => location?.directory === DIRECTORY)).toBe(true);
    expect(await told(session)).toEqual(['echo: one two', 'one two', 'idle succeeded']);
    expect(await fake.json('GET', `/api/session/${session}`)).toMatchObject({ data: { outcome: 'succeeded' } });
    expect(await active()).toEqual([]);
  });

  it('shows an empty text while it streams', async () => {
    const session = await open();
    await prompt(session, 'gate-mid half: first |second');
    await tap.waitFor('session.text.delta');
    expect(await active()).toEqual([session]);
    expect((await messages(session)).at(-1)).toMatchObject({
      type: 'assistant',
      content: [{ type: 'text', text: '' }],
    });
    fake.model.release('half');
    await idle(session);
    expect(textOf((await messages(session)).at(-2))).toBe('first second');
  });

  it('asks for permission, and continues when it is given', async () => {
    const session = await open();
    await prompt(session, 'bash: echo "from the shell"');
    const path = await asked(session);
    expect(await fake.json('GET', `/api/session/${session}/permission`)).toMatchObject({
      data: [{ action: 'shell', resources: ['echo "from the shell"'], source: { type: 'tool' } }],
    });
    expect((await fake.api(`${path}/reply`, { method: 'POST', body: { decision: 'once' } })).status).toBe(204);
    await idle(session);
    expect(types(tap.of(session)).slice(4)).toEqual([
      'step.started',
      'tool.input.started',
      'tool.input.delta',
      'tool.input.ended',
      'tool.called',
      'permission.asked',
      'permission.replied',
      'tool.success',
      'step.streamed',
      'step.ended',
      'step.started',
      'text.started',
      'text.delta',
      'text.ended',
      'step.streamed',
      'step.ended',
      'execution.succeeded',
    ]);
    expect(textOf((await messages(session)).at(-2))).toBe(
      expectedReply('bash: echo "from the shell"', 'from the shell'),
    );
    expect((await fake.api(`${path}/reply`, { method: 'POST', body: { decision: 'once' } })).status).toBe(404);
  });

  it.each([
    [{ decision: 'reject' }, 'interrupted'],
    [{ decision: 'reject', message: 'use another one' }, 'succeeded'],
  ])('ends after a bare rejection, and continues after one with a message: %j', async (body, outcome) => {
    const session = await open();
    await prompt(session, 'bash: echo no');
    await fake.api(`${await asked(session)}/reply`, { method: 'POST', body });
    await idle(session);
    expect((await told(session)).at(-1)).toBe(`idle ${outcome}`);
    expect(types(tap.of(session))).toContain('tool.failed');
    // A bare no leaves the message open.
    const last = (await messages(session)).findLast(({ type }) => type === 'assistant');
    expect('finish' in (last ?? {})).toBe(outcome === 'succeeded');
  });

  it('delegates to a session of its own, which has its own requests', async () => {
    const session = await open();
    await prompt(session, 'task: bash: echo deep');
    const { data } = await tap.waitFor('permission.asked');
    expect(data.sessionID).not.toBe(session);
    expect(await fake.json('GET', `/api/session/${data.sessionID}`)).toMatchObject({ data: { parentID: session } });
    expect((await active()).toSorted()).toEqual([session, String(data.sessionID)].toSorted());
    const roots = await fake.json<{ data: { id: string }[] }>('GET', '/api/session?parentID=null');
    expect(roots.data.map(({ id }) => id)).toEqual([session]);
    await fake.api(`${await asked(String(data.sessionID))}/reply`, { method: 'POST', body: { decision: 'once' } });
    await idle(session);
    expect(textOf((await messages(session)).at(-2))).toContain('deep');
  });

  it('retries, and fails in the end', async () => {
    const session = await open();
    await prompt(session, 'fail 500');
    await idle(session);
    expect(types(tap.of(session)).slice(-3)).toEqual(['retry.scheduled', 'step.failed', 'execution.failed']);
    const [, answer, end] = await messages(session);
    expect(answer).toMatchObject({ finish: 'error', error: { message: 'scripted failure 500' } });
    expect(end).toMatchObject({ type: 'idle', outcome: 'failed', error: { status: 500 } });
    await prompt(session, 'fail-times 2 500: at last');
    await idle(session);
    expect(textOf((await messages(session)).at(-2))).toBe('at last');
    expect(fake.model.turns('fail-times 2 500: at last')).toBe(3);
  });

  it('compacts in a turn, and on request', async () => {
    const session = await open();
    await prompt(session, 'overflow 1: echo: much');
    await idle(session);
    expect((await messages(session)).map(({ type }) => type)).toEqual([
      'user',
      'assistant',
      'compaction',
      'assistant',
      'idle',
    ]);
    const asked = await fake.json('POST', `/api/session/${session}/compact`, {});
    expect(asked).toMatchObject({ data: { type: 'compaction' } });
    await idle(session);
    expect((await messages(session)).slice(-2)).toMatchObject([
      { type: 'compaction', status: 'completed', reason: 'manual' },
      { type: 'idle' },
    ]);
    expect(types(tap.of(session))).toEqual(
      expect.arrayContaining(['compaction.started', 'compaction.delta', 'compaction.ended']),
    );
  });

  it('runs the script of a text', async () => {
    fake.script('my own', [
      { kind: 'think', text: 'hm' },
      { kind: 'tool', name: 'read', input: { path: 'x' }, fails: 'no such file' },
      { kind: 'say', chunks: ['cut sh'] },
      { kind: 'finish', reason: 'length' },
    ]);
    const session = await open();
    await prompt(session, 'my own');
    await idle(session);
    const [, first, second] = await messages(session);
    expect(first).toMatchObject({
      content: [
        { type: 'reasoning', text: 'hm' },
        { type: 'tool', state: { status: 'error', error: { message: 'no such file' } } },
      ],
    });
    expect(second).toMatchObject({ finish: 'length', content: [{ text: 'cut sh' }] });
  });
});

describe('delivery on the fake of OpenCode 2.1', () => {
  it('answers a known id with its first admission, with any text', async () => {
    const session = await open();
    const first = await prompt(session, 'echo: first', { id: 'msg_same' });
    const second = await prompt(session, 'echo: second', { id: 'msg_same' });
    expect([first.status, second.status]).toEqual([200, 200]);
    expect(await second.json()).toEqual(await first.json());
    await idle(session);
    expect(await told(session)).toEqual(['echo: first', 'first', 'idle succeeded']);
  });

  it('reports whether an interrupt ended something', async () => {
    const session = await open();
    await prompt(session, 'hang cut');
    await fake.model.waitForGate('cut');
    expect(await interrupt(session)).toEqual({ interrupted: true });
    expect(await interrupt(session)).toEqual({ interrupted: false });
    expect(fake.model.requests[0]?.aborted).toBe(true);
    const end = await tap.waitFor('session.execution.interrupted', ({ data }) => data.sessionID === session);
    expect(end).toMatchObject({ data: { reason: 'user' } });
    expect(await told(session)).toEqual(['hang cut', 'idle interrupted']);
  });

  it('resumes a killed turn with a synthetic message, unlike a serve', async () => {
    const session = await open();
    await prompt(session, 'bash: echo cut', { id: 'msg_cut' });
    const path = await asked(session);
    const { port } = fake;
    await fake.restart({ resume: false, pid: 4_711 });
    expect(fake).toMatchObject({ port, pid: 4_711 });
    expect(await active()).toEqual([]);
    expect((await messages(session)).at(-1)?.time).not.toHaveProperty('completed');
    expect((await fake.api(`${path}/reply`, { method: 'POST', body: { decision: 'once' } })).status).toBe(404);
    await fake.restart();
    await idle(session);
    expect((await messages(session)).slice(-3)).toMatchObject([
      { type: 'synthetic' },
      { type: 'assistant', content: [{ text: RESUMED_REPLY }] },
      { type: 'idle', outcome: 'succeeded' },
    ]);
    expect(await within(tap.ended, 'the stream to break')).toBeInstanceOf(Error);
  });

  it('interrupts turns when stopped, and the next service resumes them', async () => {
    const session = await open();
    await prompt(session, 'hang stopped');
    await fake.model.waitForGate('stopped');
    await fake.stop();
    await fake.restart({ resume: false });
    expect(await active()).toEqual([]);
    expect((await told(session)).at(-1)).toBe('idle interrupted');
    await fake.restart();
    await until('it to go on', async () => (await told(session)).at(-1) === 'idle succeeded');
  });
});

describe('forms on the fake of OpenCode 2.1', () => {
  const FIELDS = [
    { key: 'name', type: 'string', required: true, minLength: 2 },
    { key: 'colour', type: 'string', options: [{ value: 'red', label: 'Red' }] },
    { key: 'count', type: 'integer', minimum: 1, maximum: 3 },
    { key: 'ratio', type: 'number' },
    { key: 'sure', type: 'boolean', required: true },
    { key: 'tags', type: 'multiselect', options: [{ value: 'a', label: 'A' }], maxItems: 1 },
    { key: 'why', type: 'string', required: true, when: [{ key: 'sure', op: 'eq', value: false }] },
    { key: 'page', type: 'external', url: 'https://example.invalid/' },
  ] as const;

  it('takes a fitting answer, once', async () => {
    fake.script('form', [
      { kind: 'form', title: 'Some things', fields: FIELDS },
      { kind: 'report', tool: 'question' },
    ]);
    const session = await open();
    await prompt(session, 'form');
    const { data } = await tap.waitFor('form.created');
    const form = data['form'] as { readonly id: string };
    expect(await fake.json('GET', `/api/session/${session}/form`)).toEqual({ data: [data['form']] });
    const path = `/api/session/${session}/form/${form.id}`;
    const reply = async (answer: unknown): Promise<number> =>
      (await fake.api(`${path}/reply`, { method: 'POST', body: { answer } })).status;
    for (const answer of [
      {},
      { name: 'me' },
      { name: 'm', sure: true },
      { name: 'me', sure: 'yes' },
      { name: 'me', sure: true, colour: 'blue' },
      { name: 'me', sure: true, count: 4 },
      { name: 'me', sure: true, count: 1.5 },
      { name: 'me', sure: true, tags: ['b'] },
      { name: 'me', sure: false },
      { name: 'me', sure: true, page: 'seen' },
      { name: 'me', sure: true, nosuch: 1 },
    ])
      expect([answer, await reply(answer)]).toEqual([answer, 400]);
    expect(await reply({ name: 'me', colour: 'red', count: 3, ratio: 0.5, sure: false, tags: ['a'], why: 'so' })).toBe(
      204,
    );
    await idle(session);
    expect(textOf((await messages(session)).at(-2))).toContain('"name"="me"');
    expect(await reply({ name: 'me', sure: true })).toBe(409);
    expect(
      (await fake.api(`/api/session/${session}/form/frm_none/reply`, { method: 'POST', body: { answer: {} } })).status,
    ).toBe(404);
  });

  it.each([
    ['', 'idle interrupted'],
    ['?message=ask%20later', 'idle succeeded'],
  ])('is cancelled%s', async (query, end) => {
    const session = await open();
    await prompt(session, 'ask: Which colour?|Red|Blue');
    const { data } = await tap.waitFor('form.created');
    const form = data['form'] as { readonly id: string };
    expect((await fake.api(`/api/session/${session}/form/${form.id}${query}`, { method: 'DELETE' })).status).toBe(204);
    await idle(session);
    expect((await told(session)).at(-1)).toBe(end);
    await tap.waitFor('form.cancelled');
  });
});

describe('sessions of the fake of OpenCode 2.1', () => {
  it('are listed by directory and pages, newest first, without archived ones', async () => {
    const ids = [await open(), await open('/home/user/other'), await open()];
    const list = async (query: string): Promise<{ ids: string[]; next: string | undefined }> => {
      const page = await fake.json<{ data: { id: string }[]; cursor: { next?: string } }>(
        'GET',
        `/api/session${query}`,
      );
      return { ids: page.data.map(({ id }) => id), next: page.cursor.next };
    };
    expect((await list('')).ids).toEqual(ids.toReversed());
    expect((await list(`?directory=${DIRECTORY}`)).ids).toEqual([ids[2], ids[0]]);
    expect((await list(`?directory=${DIRECTORY}/`)).ids).toEqual([]);
    const first = await list('?limit=2&order=asc');
    expect(first.ids).toEqual(ids.slice(0, 2));
    const second = await list(`?cursor=${first.next}`);
    expect(second.ids).toEqual([ids[2]]);
    expect((await list(`?cursor=${second.next}`)).ids).toEqual([]);
    expect((await fake.api('/api/session?cursor=zzz')).status).toBe(400);
    await fake.api(`/api/session/${ids[0]}`, { method: 'PATCH', body: { title: 'Old one', archived: true } });
    expect((await list(`?directory=${DIRECTORY}`)).ids).toEqual([ids[2]]);
    expect((await list('?archived=true&search=old')).ids).toEqual([ids[0]]);
  });

  it('keep their id, are forked before a message, and deleted', async () => {
    const body = { id: 'ses_mine', title: 'Mine', agent: 'plan', model: { providerID: 'p', id: 'm' } };
    await fake.json('POST', '/api/session', { ...body, location: { directory: DIRECTORY } });
    const again = await fake.json('POST', '/api/session', {
      id: 'ses_mine',
      location: { directory: '/home/user/other' },
    });
    expect(again).toMatchObject({ data: { ...body, location: { directory: DIRECTORY } } });
    await prompt('ses_mine', 'echo: one');
    await idle('ses_mine');
    await prompt('ses_mine', 'echo: two', { id: 'msg_two' });
    await idle('ses_mine');
    const fork = await fake.json<{ data: { id: string } }>('POST', '/api/session/ses_mine/fork', { before: 'msg_two' });
    expect(await told(fork.data.id)).toEqual(['echo: one', 'one', 'idle succeeded']);
    expect((await fake.api('/api/session/ses_mine/fork', { method: 'POST', body: { before: 'msg_no' } })).status).toBe(
      404,
    );
    fake.session('ses_mine').diff = [{ file: 'a', patch: '+a', additions: 1, deletions: 0, status: 'added' }];
    expect(await fake.json('GET', '/api/session/ses_mine/diff')).toMatchObject({ data: [{ file: 'a' }] });
    await fake.api('/api/session/ses_mine/agent', { method: 'POST', body: { agent: 'build' } });
    await fake.api('/api/session/ses_mine/model', { method: 'POST', body: { model: { providerID: 'q', id: 'n' } } });
    expect((await messages('ses_mine')).slice(-2)).toMatchObject([
      { type: 'agent-switched', agent: 'build', previous: 'plan' },
      { type: 'model-switched', model: { id: 'n' } },
    ]);
    expect((await fake.api('/api/session/ses_mine', { method: 'DELETE' })).status).toBe(204);
    expect((await fake.api('/api/session/ses_mine')).status).toBe(404);
    expect((await fake.api('/api/session/mine')).status).toBe(400);
    await tap.waitFor('session.deleted');
  });

  it('have their messages in pages, newest first', async () => {
    const session = await open();
    await prompt(session, 'echo: one');
    await idle(session);
    interface Page {
      readonly data: Message[];
      readonly cursor: { readonly next?: string; readonly previous?: string };
    }
    const path = `/api/session/${session}/message`;
    const first = await fake.json<Page>('GET', `${path}?limit=2`);
    expect(first.data.map(({ type }) => type)).toEqual(['idle', 'assistant']);
    const second = await fake.json<Page>('GET', `${path}?cursor=${first.cursor.next}`);
    expect(second.data.map(({ type }) => type)).toEqual(['user']);
    expect(await fake.json('GET', `${path}?cursor=${second.cursor.previous}`)).toMatchObject({ data: first.data });
    expect((await fake.api(`${path}?cursor=${first.cursor.next}&order=asc`)).status).toBe(400);
    expect((await fake.api(`${path}?limit=201`)).status).toBe(400);
    expect(await fake.json('GET', `${path}?type=user`)).toMatchObject({ data: [{ type: 'user' }] });
  });
});

describe('the server of the fake of OpenCode 2.1', () => {
  it('identifies itself, and asks for its password on every route', async () => {
    const info = await fake.json('GET', '/api/info');
    expect(info).toEqual({ version: '2.1.2', pid: process.pid, urls: [fake.url], paths: { tmp: '/tmp/opencode' } });
    expect((await fake.api('/api/nosuch')).status).toBe(404);
    expect(fake.takeViolations()).toEqual(['GET /api/nosuch: no route of the contract']);
    for (const path of ['/api/info', '/api/event', '/api/nosuch']) {
      const response = await fetch(fake.url + path);
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ _tag: 'UnauthorizedError' });
    }
    const page = await fetch(`${fake.url}/global/health`);
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html']);
    const token = Buffer.from(`opencode:${fake.password}`).toString('base64');
    expect((await fetch(`${fake.url}/api/info?auth_token=${token}`)).status).toBe(200);
    expect((await fetch(`${fake.url}/api/info?auth_token=no`, { headers: fake.headers })).status).toBe(401);
  });

  it('starts its stream with server.connected and a heartbeat', () => {
    expect(tap.events[0]?.type).toBe('server.connected');
    expect(tap.comments[0]?.trim()).toBe('heartbeat');
    expect(fake.streams).toBe(1);
  });

  it('records which directories were loaded', async () => {
    const added = fake.addSession({ directory: DIRECTORY }).info.id;
    await fake.json('GET', '/api/session');
    await messages(added);
    await fake.json('GET', '/api/session/active');
    expect([...fake.loaded]).toEqual([]);
    await fake.json('GET', `/api/session/${added}/permission`);
    expect([...fake.loaded]).toEqual([DIRECTORY]);
    await fake.json('GET', '/api/agent?location[directory]=/home/user/other');
    await fetch(`${fake.url}/api/model`, { headers: { ...fake.headers, 'x-opencode-directory': '/home/user/none' } });
    expect([...fake.loaded]).toEqual([DIRECTORY, '/home/user/other']);
    expect(fake.requests.at(-1)).toMatchObject({ route: 'GET /api/model', directory: '/home/user/none' });
  });

  it('reads files of the directory only', async () => {
    const at = `location[directory]=${DIRECTORY}`;
    expect(await fake.json('GET', `/api/fs/list?${at}`)).toMatchObject({
      data: [
        { path: 'README.md', type: 'file' },
        { path: 'src/', type: 'directory' },
      ],
    });
    expect(await fake.json('GET', `/api/fs/list?${at}&path=src`)).toMatchObject({ data: [{ path: 'src/main.ts' }] });
    expect(await fake.json('GET', `/api/fs/find?${at}&query=main`)).toMatchObject({ data: [{ path: 'src/main.ts' }] });
    expect(await (await fake.api(`/api/fs/read/src/main.ts?${at}`)).text()).toBe('main();\n');
    expect((await fake.api(`/api/fs/read/..%2Fsecret?${at}`)).status).toBe(400);
  });

  it('has faults', async () => {
    const session = await open();
    const body = { text: 'echo: once', id: 'msg_once', delivery: 'queue' };
    const post = (): Promise<Response> => fake.api(`/api/session/${session}/prompt`, { method: 'POST', body });
    fake.setFault(() => ({ drop: 'before' }));
    await expect(post()).rejects.toThrow('fetch failed');
    expect(fake.session(session).messages).toEqual([]);
    fake.setFault(({ route }) => (route === 'POST /api/session/{sessionID}/prompt' ? { drop: 'after' } : undefined));
    await expect(post()).rejects.toThrow('fetch failed');
    await idle(session);
    expect(await told(session)).toEqual(['echo: once', 'once', 'idle succeeded']);
    fake.setFault(() => ({ answer: { status: 503, body: 'busy' } }));
    expect((await post()).status).toBe(503);
  });

  it('writes its service file', async () => {
    await using temp = tempDir();
    const path = await fake.register(temp.path, 'beta');
    expect(path).toBe(`${temp.path}/service-beta.json`);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const { url, pid, password, version } = fake;
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ id: expect.any(String), version, url, pid, password });
  });
});

describe('the contract of the fake of OpenCode 2.1', () => {
  it.each([
    ['POST', '/prompt', { prompt: { text: 'hi' } }, 'text'],
    ['POST', '/prompt', { text: 'hi', parts: [] }, 'parts'],
    ['POST', '/prompt', { text: 'hi', delivery: 'now' }, 'delivery'],
    ['POST', '/prompt', undefined, 'a body is missing'],
    ['POST', '/permission/per_1/reply', { reply: 'once' }, 'reply'],
    ['GET', '/message?limit=ten', undefined, 'limit'],
    ['GET', '/message?directory=/x', undefined, 'directory'],
  ])('is violated by %s %s %j', async (method, path, body, named) => {
    const session = await open();
    expect((await fake.api(`/api/session/${session}${path}`, { method, body })).status).toBe(400);
    await expect(fake.close()).rejects.toThrow(named);
    expect(fake.takeViolations().join()).toContain(named);
    fake = await startFakeOpencode2();
  });

  it('is violated by an answer and an event that do not fit', async () => {
    const session = await open();
    Object.assign(fake.session(session).info, { invented: 1 });
    await fake.api(`/api/session/${session}`);
    expect(fake.takeViolations()).toEqual([expect.stringMatching(/answer 200 to GET .*invented/)]);
    fake.script('odd', [{ kind: 'form', title: 'Odd', fields: [{ key: 'k', type: 'string', invented: 1 } as never] }]);
    await prompt(session, 'odd');
    await tap.waitFor('form.created');
    await until('the event to be checked', () => fake.takeViolations().some((one) => /event form.created/.test(one)));
    await interrupt(session);
  });
});
