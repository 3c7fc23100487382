import { expect, test } from 'vitest';

import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { SELF } from '../node/stage.ts';
import { EVIL, stringsIn, unsafeIn } from '../rig/hostile-words.ts';
import { openPageStage } from './stage.ts';

const FLEET = `${PAGE_PREFIX}v1/fleet`;

test.each<[string, Record<string, string | string[]>, number]>([
  ['without the page’s own header', { 'x-opencode-mcp-page': [] }, 403],
  ['without it, from a program', { 'x-opencode-mcp-page': [], 'user-agent': 'curl/8' }, 403],
  ['with another value', { 'x-opencode-mcp-page': '0' }, 403],
  ['by a page of another origin', { origin: 'https://evil.example' }, 403],
  ['by a page of another port', { origin: `http://${SELF}:1` }, 403],
  ['by a sandboxed page', { origin: 'null' }, 403],
  ['by a name that was pointed here', { host: 'evil.example' }, 421],
  [
    'by a name that was pointed here, with the origin to it',
    { host: 'evil.example', origin: 'http://evil.example' },
    421,
  ],
])('data is not given out %s', async (_, headers, status) => {
  await using stage = await openPageStage();
  const answer = await stage.call(FLEET, { headers });
  expect(answer).toMatchObject({ status, json: { error: expect.any(String) as string } });
  expect(answer.headers['access-control-allow-origin']).toBeUndefined();
});

test('a CORS preflight is not granted', async () => {
  await using stage = await openPageStage();
  const headers = {
    origin: 'https://evil.example',
    'access-control-request-method': 'GET',
    'access-control-request-headers': 'x-opencode-mcp-page',
    'x-opencode-mcp-page': [],
  };
  const preflight = await stage.call(FLEET, { method: 'OPTIONS', headers });
  expect(preflight.status).toBe(403);
  expect(Object.keys(preflight.headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
});

test.each<[string, Record<string, string | string[]>, number]>([
  ['a form of another page, as text', { origin: 'https://evil.example', 'content-type': 'text/plain' }, 403],
  ['a form as text of our own origin', { 'content-type': 'text/plain' }, 415],
  ['a form with fields', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
  ['no type', { 'content-type': [] }, 415],
  ['a type that only begins so', { 'content-type': 'application/json-seq' }, 415],
  ['no origin', { origin: [] }, 403],
  ['a sandboxed page', { origin: 'null' }, 403],
  ['without the page’s own header', { 'x-opencode-mcp-page': [] }, 403],
  ['a name that was pointed here', { host: 'evil.example' }, 421],
])('nothing is done for %s', async (_, headers, status) => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
  stage.fake.state.begin(session.id, 'go on');
  const { id } = stage.fake.addPermission({ sessionID: session.id });
  const answer = await stage.post(
    'respond',
    { instance: 'one', session: session.id, request: id, reply: 'once' },
    { headers },
  );
  expect(answer.status).toBe(status);
  expect(stage.fake.state.permissions.has(id)).toBe(true);
  expect(stage.records).toEqual([]);
});

test.each<[string, string, object, number, RegExp]>([
  ['no JSON', 'respond', [], 400, /does not fit/],
  [
    'a field that is not known',
    'abort',
    { instance: 'one', session: 'ses_1', directory: '/tmp/evil' },
    400,
    /does not fit/,
  ],
  [
    'a standing permission',
    'respond',
    { instance: 'one', session: 'ses_1', request: 'per_1', reply: 'always' },
    400,
    /reply/,
  ],
  ['no id of a session', 'abort', { instance: 'one', session: '../config' }, 400, /session/],
  ['a part of a name', 'abort', { instance: 'on', session: 'ses_12345678' }, 404, /no instance on here/],
  ['a session that is not there', 'abort', { instance: 'one', session: 'ses_12345678' }, 404, /no session/],
])('%s is refused with what is wrong', async (_, name, body, status, text) => {
  await using stage = await openPageStage();
  const answer = await stage.post(name, body);
  expect(answer).toMatchObject({ status, json: { error: expect.stringMatching(text) as string } });
});

test('an endless body is cut off', async () => {
  await using stage = await openPageStage();
  const answer = await stage.post('send', { message: 'x'.repeat(600_000) }).catch(() => ({ status: 413 }));
  expect(answer.status).toBe(413);
});

test('content of an instance is not served to browsers', async () => {
  await using stage = await openPageStage();
  const path = `${INSTANCE_PREFIX}inst_one/session`;
  const program = await stage.call(path, { headers: { 'user-agent': 'opencode/1', 'x-opencode-mcp-page': [] } });
  expect(program).toMatchObject({ status: 200, headers: { 'content-security-policy': 'sandbox' } });
  // Not even to the page itself.
  for (const headers of [
    {},
    { origin: stage.origin },
    { 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'none' },
  ])
    expect(await stage.call(path, { headers })).toMatchObject({ status: 403 });
});

test('text of a hostile instance arrives as plain text in JSON', async () => {
  const directory = '/tmp/<img src=x onerror=alert(1)>';
  const markup = `</script><script>alert(1)</script>${EVIL}`;
  await using stage = await openPageStage({ fake: { directory } });
  const session = stage.fake.addSession({ title: markup });
  stage.fake.state.begin(session.id, markup);
  stage.fake.addPermission({
    sessionID: session.id,
    permission: markup,
    patterns: [markup],
    always: [markup],
    metadata: { command: markup, diff: markup },
  });
  stage.fake.addQuestion({
    sessionID: session.id,
    questions: [{ question: markup, header: markup, options: [{ label: markup, description: markup }] }],
  });
  await using fleet = await stage.stream('v1/fleet');
  await fleet.find('what it waits for', (line) => JSON.stringify(line).includes('"kind":"question"'));
  await using lines = await stage.stream(`v1/session?instance=one&session=${session.id}`);
  await lines.find('what it asks for', (line) => line['kind'] === 'asks');
  stage.fake.state.say(session.id, markup);
  await lines.find('what it says', (line) => line['kind'] === 'text' || JSON.stringify(line).includes('x\\n'));
  expect(fleet.response.headers['content-type']).toBe('application/x-ndjson; charset=utf-8');
  const all = [...fleet.all, ...lines.all];
  expect(JSON.stringify(all)).toContain('</script><script>alert(1)</script>x');
  expect(
    stringsIn(all)
      .map(([, text]) => unsafeIn(text))
      .filter(Boolean),
  ).toEqual([]);
});

test('a request that cannot be shown as a whole can only be rejected', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
  stage.fake.state.begin(session.id, 'go on');
  const command = 'ls \u001b]0;; rm -rf ~;\u0007';
  const { id } = stage.fake.addPermission({ sessionID: session.id, metadata: { command } });
  await using lines = await stage.stream(`v1/session?instance=one&session=${session.id}`);
  expect(await lines.find('what it asks for', (line) => line['kind'] === 'asks')).toMatchObject({
    asks: [{ command: 'ls ', canAllow: false }],
  });
  const answer = { instance: 'one', session: session.id, request: id };
  expect(await stage.post('respond', { ...answer, reply: 'once' })).toMatchObject({
    status: 422,
    json: { error: expect.stringContaining('cannot be shown') as string },
  });
  expect(stage.fake.state.permissions.has(id)).toBe(true);
  expect(await stage.post('respond', { ...answer, reply: 'reject', message: 'no' })).toMatchObject({
    json: { done: true },
  });
});
