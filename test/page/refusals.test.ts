import { afterAll, expect, test } from 'vitest';

import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { EVIL, stringsIn, unsafeIn } from '../rig/hostile-words.ts';
import { openPageStage } from './stage.ts';

const FLEET = `${PAGE_PREFIX}v1/fleet`;

const stage = await openPageStage();
const { fake } = stage;
afterAll(() => stage[Symbol.asyncDispose]());

type Headers = Readonly<Record<string, string | string[]>>;

// The guard for all requests to the node service has its tests in test/node.
test.each<[string, Headers, number]>([
  ['without the page’s own header', { 'x-opencode-mcp-page': [] }, 403],
  ['from a program, without that header', { 'x-opencode-mcp-page': [], 'user-agent': 'curl/8' }, 403],
  ['with another value of that header', { 'x-opencode-mcp-page': '0' }, 403],
  ['from a page of another origin', { origin: 'https://evil.example' }, 403],
  ['for another host name that resolves to this machine', { host: 'evil.example', origin: 'http://evil.example' }, 421],
])('a request %s gets no data', async (_, headers, status) => {
  const answer = await stage.call(FLEET, { headers });
  expect(answer).toMatchObject({ status, json: { error: expect.any(String) } });
  expect(answer.headers['access-control-allow-origin']).toBeUndefined();
});

test('a CORS preflight is refused', async () => {
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

test.each<[string, Headers, number]>([
  [
    'of type text/plain from a form of another page',
    { origin: 'https://evil.example', 'content-type': 'text/plain' },
    403,
  ],
  ['of type text/plain', { 'content-type': 'text/plain' }, 415],
  ['from a form with fields', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
  ['without a type', { 'content-type': [] }, 415],
  ['with a type that only begins like JSON’s', { 'content-type': 'application/json-seq' }, 415],
  ['without an origin', { origin: [] }, 403],
  ['from a sandboxed page', { origin: 'null' }, 403],
  ['without the page’s own header', { 'x-opencode-mcp-page': [] }, 403],
])('an action %s does nothing', async (_, headers, status) => {
  const waiting = stage.waiting();
  expect(await stage.post('respond', { ...waiting, reply: 'once' }, { headers })).toMatchObject({ status });
  expect(fake.state.permissions.has(waiting.request)).toBe(true);
  expect(stage.records).toEqual([]);
});

const NO_SESSION = { instance: 'one', session: 'ses_12345678' };

test.each<[string, string, object, number, RegExp]>([
  ['a body that is not a JSON object', 'respond', [], 400, /does not fit/],
  ['an unknown field', 'abort', { ...NO_SESSION, directory: '/tmp/evil' }, 400, /does not fit/],
  ['a standing permission', 'respond', { ...NO_SESSION, request: 'per_1', reply: 'always' }, 400, /reply/],
  ['a session id with a path', 'abort', { instance: 'one', session: '../config' }, 400, /session/],
  ['a part of an instance name', 'abort', { ...NO_SESSION, instance: 'on' }, 404, /no instance on here/],
  ['an unknown session', 'abort', NO_SESSION, 404, /no session/],
])('%s is refused with the reason', async (_, name, body, status, text) => {
  const answer = await stage.post(name, body);
  expect(answer).toMatchObject({ status, json: { error: expect.stringMatching(text) } });
});

test('a body that is too large is refused', async () => {
  const answer = await stage.post('send', { message: 'x'.repeat(600_000) }).catch(() => ({ status: 413 }));
  expect(answer.status).toBe(413);
});

test('an instance’s content is not served to browsers, including the page itself', async () => {
  const path = `${INSTANCE_PREFIX}inst_one/session`;
  const program = await stage.call(path, { headers: { 'user-agent': 'opencode/1', 'x-opencode-mcp-page': [] } });
  expect(program).toMatchObject({ status: 200, headers: { 'content-security-policy': 'sandbox' } });
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
  await fleet.find('the question', (line) => JSON.stringify(line).includes('"kind":"question"'));
  await using lines = await stage.follow(session.id);
  await lines.find('the requests', (line) => line['kind'] === 'asks');
  stage.fake.state.say(session.id, markup);
  await lines.find('the text', (line) => line['kind'] === 'text' || JSON.stringify(line).includes('x\\n'));
  expect(fleet.response.headers['content-type']).toBe('application/x-ndjson; charset=utf-8');
  const all = [...fleet.all, ...lines.all];
  expect(JSON.stringify(all)).toContain('</script><script>alert(1)</script>x');
  expect(
    stringsIn(all)
      .map(([, text]) => unsafeIn(text))
      .filter(Boolean),
  ).toEqual([]);
});

test('a permission whose command cannot be shown in full can only be rejected', async () => {
  const waiting = stage.waiting({ metadata: { command: 'ls \u001b]0;; rm -rf ~;\u0007' } });
  await using lines = await stage.follow(waiting.session);
  expect(await lines.find('the requests', (line) => line['kind'] === 'asks')).toMatchObject({
    asks: [{ command: 'ls ', canAllow: false }],
  });
  expect(await stage.post('respond', { ...waiting, reply: 'once' })).toMatchObject({
    status: 422,
    json: { error: expect.stringContaining('cannot be shown') },
  });
  expect(fake.state.permissions.has(waiting.request)).toBe(true);
  expect(await stage.post('respond', { ...waiting, reply: 'reject', message: 'no' })).toMatchObject({
    json: { done: true },
  });
});

test('an error about an opencode that has ended advises no tool call', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
  await stage.fake.close();
  const { status, json } = await stage.call(`${PAGE_PREFIX}v1/session?instance=one&session=${session.id}`);
  expect(status).toBe(503);
  expect(json['error']).toContain('Check that opencode still runs there, then look in the list.');
});
