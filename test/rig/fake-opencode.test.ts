import { readFile } from 'node:fs/promises';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { tapEvents } from './event-tap.ts';
import { startFakeOpencode, type FakeOpencode } from './fake-opencode.ts';
import { startFakes } from './fakes.ts';
import { until, within } from './wait.ts';

async function recorded(name: string): Promise<unknown> {
  return JSON.parse(await readFile(new URL(`recorded/1.18.33/${name}.json`, import.meta.url), 'utf8'));
}

/** The paths of all fields with the types of their values; of a list, its first element's. */
function shape(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return shape(value[0], `${path}[]`);
  if (typeof value !== 'object' || value === null) return [`${path}: ${typeof value}`];
  return Object.entries(value).flatMap(([name, field]) => shape(field, `${path}.${name}`));
}

/** An element of a recorded list or stream that a test looks for. */
function find(list: unknown, text: string): unknown {
  return Array.isArray(list) ? list.find((element) => JSON.stringify(element).includes(text)) : undefined;
}

describe('fake opencode', () => {
  let fake: FakeOpencode;
  beforeEach(async () => {
    fake = await startFakeOpencode({ reply: (text) => `re: ${text}` });
  });
  afterEach(() => fake.close());

  const get = async (path: string): Promise<unknown> => (await fetch(fake.url + path)).json();
  const prompt = (sessionID: string, text: string): Promise<Response> =>
    fetch(`${fake.url}/session/${sessionID}/prompt_async`, {
      method: 'POST',
      body: JSON.stringify({ messageID: 'msg_given', parts: [{ id: 'prt_given', type: 'text', text }] }),
    });

  it.each([
    ['/global/health', 'get-health'],
    ['/path', 'get-path'],
    ['/session?roots=true&limit=1', 'get-session-list'],
    ['/session/status', 'get-session-status-idle'],
    ['/permission', 'get-permission-none'],
    ['/session/ses_unknown', 'get-session-unknown'],
  ])('answers %s in the shape of a real one', async (path, name) => {
    fake.addSession();
    const real = await recorded(name);
    const body = typeof real === 'object' && real !== null && 'body' in real ? real.body : undefined;
    expect(shape(await get(path)).toSorted()).toEqual(shape(body).toSorted());
  });

  it('lists permissions and questions in the shape of a real one, for its own directory', async () => {
    const { id } = fake.addSession();
    fake.addPermission({ sessionID: id, tool: { messageID: 'msg_x', callID: 'call_x' } });
    const question = fake.addQuestion({ sessionID: id });
    expect(shape(await get('/permission')).toSorted()).toEqual(shape(await recorded('get-permission')).toSorted());
    expect(shape(await recorded('get-question'))).toEqual(expect.arrayContaining(shape(await get('/question'))));
    expect(await get('/question?directory=/elsewhere')).toEqual([]);
    const reply = { method: 'POST', body: '{"answers":[["Yes"]]}' };
    expect((await fetch(`${fake.url}/question/${question.id}/reply`, reply)).status).toBe(200);
    expect((await fetch(`${fake.url}/question/${question.id}/reply`, reply)).status).toBe(404);
  });

  it('plays a turn with the events of a real one, in their order', async () => {
    const { id } = fake.addSession();
    await using tap = await tapEvents(fake);
    expect((await prompt(id, 'hello')).status).toBe(204);
    await tap.waitFor('session.idle');
    const real = await recorded('turn-text.events');
    const types = Array.isArray(real) ? real.map((event: { type: string }) => event.type) : [];
    let next = 0;
    for (const type of tap.types) {
      const found = types.indexOf(type, next);
      expect(found, `${type} after ${types[next - 1]}`).toBeGreaterThanOrEqual(next);
      next = found + 1;
    }
    const delta = tap.events.find(({ type }) => type === 'message.part.delta');
    expect(shape(delta).toSorted()).toEqual(shape(find(real, 'message.part.delta')).toSorted());
    const messages = await get(`/session/${id}/message`);
    expect(messages).toMatchObject([
      { info: { id: 'msg_given', role: 'user' }, parts: [{ id: 'prt_given', text: 'hello' }] },
      { info: { role: 'assistant', parentID: 'msg_given', finish: 'stop' }, parts: [{ text: 're: hello' }] },
    ]);
  });

  it('stays busy until it is told to finish, where no reply is given', async () => {
    await using silent = await startFakeOpencode();
    const { id } = silent.addSession();
    await fetch(`${silent.url}/session/${id}/prompt_async`, {
      method: 'POST',
      body: JSON.stringify({ parts: [{ type: 'text', text: 'work' }] }),
    });
    expect(await (await fetch(`${silent.url}/session/status`)).json()).toEqual({ [id]: { type: 'busy' } });
    silent.state.finish(id, 'done');
    expect(await (await fetch(`${silent.url}/session/status`)).json()).toEqual({});
  });

  it('tells all its streams of an abort, for an id that no session has too', async () => {
    await using here = await tapEvents(fake);
    await using everywhere = await tapEvents({ url: fake.url }, '/global/event');
    await using elsewhere = await tapEvents({ url: fake.url, directory: '/elsewhere' });
    const sessionID = 'ses_000000000000AAAAAAAAAAAAAA';
    expect(await (await fetch(`${fake.url}/session/${sessionID}/abort`, { method: 'POST' })).json()).toBe(true);
    const [heard, wrapped] = await Promise.all([
      here.waitFor('session.idle', (idle) => idle.sessionID === sessionID),
      everywhere.waitFor('session.idle', (idle) => idle.sessionID === sessionID),
    ]);
    expect(wrapped).toEqual(heard);
    fake.endStreams();
    await within(elsewhere.ended, 'the end of the streams');
    expect(elsewhere.types).toEqual(['server.connected']);
  });

  it('pages back through messages', async () => {
    const { id } = fake.addSession();
    await using tap = await tapEvents(fake);
    for (const text of ['a', 'b']) {
      const from = tap.events.length;
      await prompt(id, text);
      await tap.waitFor('session.idle', undefined, { from });
    }
    const newest = await fetch(`${fake.url}/session/${id}/message?limit=3`);
    const cursor = newest.headers.get('x-next-cursor') ?? '';
    expect(await newest.json()).toHaveLength(3);
    const older = await fetch(`${fake.url}/session/${id}/message?limit=3&before=${cursor}`);
    expect(await older.json()).toMatchObject([{ info: { role: 'user' }, parts: [{ text: 'a' }] }]);
    expect(older.headers.get('x-next-cursor')).toBeNull();
  });

  it('does what an override says, as often as it says', async () => {
    fake.override('GET /path', { kind: 'html' }, 1);
    expect((await fetch(`${fake.url}/path`)).headers.get('content-type')).toBe('text/html');
    expect((await fetch(`${fake.url}/path`)).headers.get('content-type')).toBe('application/json');
    fake.override('GET /path', { kind: 'redirect', to: 'http://127.0.0.1:9/' });
    expect((await fetch(`${fake.url}/path`, { redirect: 'manual' })).status).toBe(302);
    fake.override('GET /path', { kind: 'answer', status: 500, body: { name: 'UnknownError' } });
    expect((await fetch(`${fake.url}/path`)).status).toBe(500);
    fake.override('GET /path', undefined);
    expect((await fetch(`${fake.url}/path`)).status).toBe(200);
    expect(fake.count('GET /path')).toBe(5);
    expect((await fetch(`${fake.url}/nowhere`)).headers.get('content-type')).toBe('text/html');
    expect(fake.count('other')).toBe(1);
  });

  it('hangs, and sends without end, until the client leaves', async () => {
    fake.override('GET /path', { kind: 'hang' });
    const controller = new AbortController();
    const hanging = fetch(`${fake.url}/path`, { signal: controller.signal });
    await until('the request to be in work', () => fake.load.current === 1);
    controller.abort();
    await expect(hanging).rejects.toThrow('aborted');
    await until('the request to be gone', () => fake.load.current === 0);

    fake.override('GET /path', { kind: 'endless' });
    const reader = (await fetch(`${fake.url}/path`)).body?.getReader();
    let received = 0;
    while (received < 4_000_000) received += (await reader?.read())?.value?.length ?? 0;
    await reader?.cancel();
    await until('the request to be gone', () => fake.load.current === 0);
  });

  it('asks for its password on every path', async () => {
    await using locked = await startFakeOpencode({ password: 'secret' });
    expect((await fetch(`${locked.url}/global/health`)).status).toBe(401);
    const authorization = `Basic ${Buffer.from('opencode:secret').toString('base64')}`;
    expect((await fetch(`${locked.url}/global/health`, { headers: { authorization } })).status).toBe(200);
  });

  it('sends heartbeats', async () => {
    await using lively = await startFakeOpencode({ heartbeatMs: 5 });
    await using tap = await tapEvents(lively);
    const beats = (): number => tap.events.filter(({ type }) => type.endsWith('heartbeat')).length;
    await until('two heartbeats', () => beats() >= 2);
    expect(tap.types).toEqual(['server.connected']);
  });
});

describe('fleets of fakes', () => {
  it('measures how many requests are in work over all of them', async () => {
    await using fakes = await startFakes(3, 2);
    const controller = new AbortController();
    const requests = fakes.all.map(({ url }) => fetch(`${url}/global/health`, { signal: controller.signal }));
    await until('two to hang', () => fakes.load.current === 2);
    expect((await requests[0])?.status).toBe(200);
    controller.abort();
    await Promise.allSettled(requests);
    expect(fakes.load.max).toBeGreaterThanOrEqual(2);
  });
});
