import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { until } from '../wait.ts';
import { startFakeOpencode2, type FakeOpencode2 } from './fake-opencode-2.ts';
import { checkAnswerOf } from './forms.ts';

/**
 * Tests that the fake detects invalid requests and answers, which no other suite covers. `fake-alike.test.ts` and the suites that use the
 * fake cover its other behaviour.
 */
const DIRECTORY = '/home/user/project';

let fake: FakeOpencode2;
let session: string;

beforeEach(async () => {
  fake = await startFakeOpencode2({ directories: { [DIRECTORY]: {}, '/home/user/other': {} } });
  session = fake.addSession({ directory: DIRECTORY }).info.id;
});
afterEach(() => fake.close().catch(() => {}));

describe('the contract of OpenCode 2.1 is violated', () => {
  it.each([
    ['POST', '/prompt', { prompt: { text: 'hi' } }, 'text'],
    ['POST', '/prompt', { text: 'hi', parts: [] }, 'parts'],
    ['POST', '/prompt', { text: 'hi', delivery: 'now' }, 'delivery'],
    ['POST', '/prompt', undefined, 'a body is missing'],
    ['POST', '/permission/per_1/reply', { reply: 'once' }, 'reply'],
    ['GET', '/message?limit=ten', undefined, 'limit'],
    ['GET', '/message?directory=/x', undefined, 'directory'],
    ['GET', '/nosuch', undefined, 'no route of the contract'],
  ])('by the request %s %s %j', async (method, path, body, fault) => {
    expect((await fake.api(`/api/session/${session}${path}`, { method, body })).ok).toBe(false);
    await expect(fake.close()).rejects.toThrow(fault);
  });

  it('by an answer with an unknown field', async () => {
    Object.assign(fake.session(session).info, { invented: 1 });
    await fake.api(`/api/session/${session}`);
    await expect(fake.close()).rejects.toThrow(/answer 200 to GET .*invented/);
  });

  it('by an event with an unknown field', async () => {
    fake.script('odd', [{ kind: 'form', title: 'Odd', fields: [{ key: 'k', type: 'string', invented: 1 } as never] }]);
    await fake.json('POST', `/api/session/${session}/prompt`, { text: 'odd' });
    const forms = (): Promise<{ data: unknown[] }> => fake.json('GET', `/api/session/${session}/form`);
    await until('the form', async () => (await forms()).data.length > 0);
    await expect(fake.close()).rejects.toThrow(/event form\.created: .*invented/);
  });
});

it('records directories that are loaded through a session, the query or the header', async () => {
  for (const path of ['', `/${session}`, `/${session}/message`, '/active'])
    await fake.json('GET', `/api/session${path}`);
  expect([...fake.loaded]).toEqual([]);
  await fake.json('GET', `/api/session/${session}/permission`);
  expect([...fake.loaded]).toEqual([DIRECTORY]);
  await fake.json('GET', '/api/agent?location[directory]=/home/user/other');
  const headers = { ...fake.headers, 'x-opencode-directory': '/home/user/none' };
  expect((await fetch(`${fake.url}/api/model`, { headers })).status).toBe(404);
  expect([...fake.loaded]).toEqual([DIRECTORY, '/home/user/other']);
  expect(fake.requests.at(-1)).toMatchObject({ route: 'GET /api/model', directory: '/home/user/none' });
  await fake.close();
});

it.each([
  '/api/session/ses_one/message?order=asc&cursor=e30',
  '/api/session?cursor=zzz',
  '/api/fs/list?path=../other',
  '/api/fs/read/..%2Fsecret',
])('refuses GET %s', async (path) => {
  fake.addSession({ id: 'ses_one', directory: DIRECTORY });
  expect((await fake.api(path)).status).toBe(400);
});

it.each([
  [{}, 'name is required'],
  [{ name: 'me' }, 'sure is required'],
  [{ name: 'm', sure: true }, 'name does not fit'],
  [{ name: 'me', sure: 'yes' }, 'sure does not fit'],
  [{ name: 'me', sure: true, colour: 'blue' }, 'colour does not fit'],
  [{ name: 'me', sure: true, count: 4 }, 'count does not fit'],
  [{ name: 'me', sure: true, count: 1.5 }, 'count does not fit'],
  [{ name: 'me', sure: true, tags: ['b'] }, 'tags does not fit'],
  [{ name: 'me', sure: false }, 'why is required'],
  [{ name: 'me', sure: true, page: 'seen' }, 'page is not asked'],
  [{ name: 'me', sure: true, nosuch: 1 }, 'no field nosuch'],
  [{ name: 'me', colour: 'red', count: 3, ratio: 0.5, sure: false, tags: ['a'], why: 'so' }, undefined],
])('checks the answer %j to a form: %s', (answer, fault) => {
  const fields = [
    { key: 'name', type: 'string', required: true, minLength: 2 },
    { key: 'colour', type: 'string', options: [{ value: 'red', label: 'Red' }] },
    { key: 'count', type: 'integer', minimum: 1, maximum: 3 },
    { key: 'ratio', type: 'number' },
    { key: 'sure', type: 'boolean', required: true },
    { key: 'tags', type: 'multiselect', options: [{ value: 'a', label: 'A' }], maxItems: 1 },
    { key: 'why', type: 'string', required: true, when: [{ key: 'sure', op: 'eq', value: false }] },
    { key: 'page', type: 'external', url: 'https://example.invalid/' },
  ] as const;
  expect(checkAnswerOf(fields, answer)).toBe(fault);
});
