import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';

import { afterAll, expect, test } from 'vitest';

import { RECHECK_MS } from '../../src/node/access/gate.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { CAPABILITY, OWN_LAPTOP, READER, SELF, STRANGER } from '../node/stage.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { testRuntime } from '../rig/runtime.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { COLLEAGUE, openPageStage, sessionsIn } from './stage.ts';

const FLEET = 'v1/fleet';

const stage = await openPageStage();
const { fake } = stage;
afterAll(() => stage[Symbol.asyncDispose]());

test('a browser gets the files with a strict policy', async () => {
  for (const [path, type] of [
    ['/', 'text/html; charset=utf-8'],
    [`${PAGE_PREFIX}app.css`, 'text/css; charset=utf-8'],
    [`${PAGE_PREFIX}app.js`, 'text/javascript; charset=utf-8'],
    [`${PAGE_PREFIX}icon.svg`, 'image/svg+xml'],
  ] as const) {
    const { status, headers } = await stage.call(path, { headers: { 'x-opencode-mcp-page': [] } });
    expect([path, status, headers['content-type']]).toEqual([path, 200, type]);
    expect(headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'");
    expect(headers['content-security-policy']).toContain("frame-ancestors 'none'");
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
    });
  }
});

test('the list shows this machine’s instances, and each change', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession({ title: 'Fix the build' });
  await using lines = await stage.stream(FLEET);
  const first = await lines.find('the session', (line) => sessionsIn(line).length > 0);
  expect(first).toMatchObject({
    you: { name: expect.stringContaining('cleo@example.com'), role: 'drive', all: false },
    machines: [{ state: 'ok' }],
    instances: [{ name: 'one', state: 'idle', directory: stage.fake.directory, version: '1.18.33' }],
    sessions: [{ instance: 'one', id: session.id, title: 'Fix the build', state: 'idle', waiting: [] }],
  });
  stage.fake.state.begin(session.id, 'go on');
  const busy = await lines.find('busy', (line) => sessionsIn(line)[0]?.['state'] === 'busy');
  expect(sessionsIn(busy)[0]).toMatchObject({ id: session.id, title: 'Fix the build' });
  const { id } = stage.fake.addPermission({ sessionID: session.id, metadata: { command: 'rm -rf build' } });
  const waiting = await lines.find('waiting', (line) => sessionsIn(line)[0]?.['state'] === 'waiting');
  expect(sessionsIn(waiting)[0]?.['waiting']).toEqual([{ kind: 'permission', id, text: 'bash "rm -rf build"' }]);
});

test('a session’s stream has its messages, new text, requests and state', async () => {
  const session = fake.addSession({ title: 'Fix the build' });
  fake.state.begin(session.id, 'one');
  fake.state.finish(session.id, 'It is done.');
  await using lines = await stage.follow(session.id);
  await lines.find('its requests', ({ kind }) => kind === 'asks');
  expect(lines.all.slice(0, 4)).toMatchObject([
    { kind: 'session', title: 'Fix the build', directory: fake.directory, state: 'idle', canDrive: true },
    {
      kind: 'messages',
      messages: [
        { role: 'user', done: true, parts: [{ kind: 'text', text: 'one' }] },
        { role: 'assistant', done: true, parts: [{ kind: 'text', text: 'It is done.' }] },
      ],
    },
    { kind: 'asks', asks: [] },
    { kind: 'state', state: 'idle' },
  ]);
  fake.state.begin(session.id, 'two');
  await lines.find('that it is busy', ({ kind, state }) => kind === 'state' && state === 'busy');
  fake.state.say(session.id, 'Hel');
  await lines.find('the first words', (line) => JSON.stringify(line).includes('Hel'));
  fake.state.say(session.id, 'lo');
  await lines.find('only the next piece', ({ kind, text }) => kind === 'text' && text === 'lo');
  fake.state.finish(session.id, '!');
  await lines.find(
    'the whole answer',
    ({ kind, message }) => kind === 'message' && JSON.stringify(message).includes('"Hello!"'),
  );
  await until('the idle state', () => lines.all.findLast(({ kind }) => kind === 'state')?.['state'] === 'idle');
  fake.state.begin(session.id, 'three');
  const { id } = fake.addPermission({ sessionID: session.id, metadata: { command: 'rm -rf build' } });
  const asks = await lines.find('the request', (line) => line['kind'] === 'asks' && JSON.stringify(line).includes(id));
  expect(asks).toMatchObject({
    asks: [{ id, sessionId: session.id, kind: 'permission', permission: 'bash', command: 'rm -rf build' }],
  });
  await lines.find('that it waits', ({ kind, state }) => kind === 'state' && state === 'waiting');
});

test('a stream of older messages has one page, and ends', async () => {
  const session = fake.addSession();
  for (let number = 1; number <= 60; number += 1) fake.state.ask(session.id, `message ${number}`);
  await using lines = await stage.follow(session.id);
  const { older } = await lines.find('the newest', ({ kind }) => kind === 'messages');
  await using rest = await stage.follow(session.id, {}, { before: String(older) });
  const page = await rest.find('older ones', ({ kind }) => kind === 'messages');
  expect(JSON.stringify(page)).toContain('message 10"');
  expect(JSON.stringify(page)).not.toContain('message 11"');
  await until('the end', () => rest.closed());
  expect(rest.all).toHaveLength(1);
});

test('a permission is allowed once, and the record names the caller', async () => {
  const waiting = stage.waiting();
  const answer = { ...waiting, reply: 'once' };
  expect(await stage.post('respond', answer)).toMatchObject({
    status: 200,
    json: { done: true, text: expect.stringContaining('allowed once') },
  });
  expect(fake.state.permissions.has(waiting.request)).toBe(false);
  expect(await stage.post('respond', answer)).toMatchObject({ status: 200, json: { done: false, gone: true } });
  expect(stage.records.slice(-2)).toMatchObject([
    {
      client: { name: expect.stringContaining('cleo@example.com') },
      tool: 'respond',
      instances: ['one'],
      session: waiting.session,
      outcome: 'ok',
    },
    { outcome: 'gone' },
  ]);
});

test('when two devices settle a request at the same time, one succeeds and the other learns that it is gone', async () => {
  const waiting = stage.waiting();
  await using phone = await stage.follow(waiting.session);
  await using tablet = await stage.follow(waiting.session);
  const devices = [phone, tablet];
  for (const device of devices)
    await device.find('the request', (line) => JSON.stringify(line).includes(waiting.request));
  const answers = await Promise.all(['once', 'reject'].map((reply) => stage.post('respond', { ...waiting, reply })));
  expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  expect(answers.filter(({ json }) => json['done'] === true)).toHaveLength(1);
  expect(answers.filter(({ json }) => json['gone'] === true)).toHaveLength(1);
  for (const device of devices)
    await until(
      'no request',
      () => JSON.stringify(device.all.findLast(({ kind }) => kind === 'asks')?.['asks']) === '[]',
    );
});

test('a request is settled only through its own session', async () => {
  const waiting = stage.waiting();
  const { id: session } = fake.addSession();
  const answer = await stage.post('respond', { ...waiting, session, reply: 'once' });
  expect(answer).toMatchObject({ status: 200, json: { done: false, gone: true } });
  expect(fake.state.permissions.has(waiting.request)).toBe(true);
});

test('an answer with the shown label selects the original label', async () => {
  const session = fake.addSession();
  fake.state.begin(session.id, 'go on');
  const label = '\u202eRed';
  const question = { question: 'Which color?', header: 'Color' };
  const options = [{ label, description: 'warm' }];
  const { id } = fake.addQuestion({ sessionID: session.id, questions: [{ ...question, options }] });
  await using lines = await stage.follow(session.id);
  const shown = { ...question, options: [{ label: 'Red', description: 'warm' }], multiple: false, custom: true };
  expect(await lines.find('the question', ({ kind }) => kind === 'asks')).toMatchObject({
    asks: [{ id, kind: 'question', questions: [shown] }],
  });
  const endpoint = { url: fake.url, route: 'loopback' } as const;
  const events = await openEvents({ endpoint, credential: { username: 'opencode', password: 'pa55word' } }, '/event');
  const answer = { instance: 'one', session: session.id, request: id, answers: [['Red']] };
  expect(await stage.post('respond', answer)).toMatchObject({ json: { done: true } });
  for await (const { type, properties } of events) {
    if (type !== 'question.replied') continue;
    expect(properties).toMatchObject({ requestID: id, answers: [[label]] });
    break;
  }
  expect(fake.state.questions.has(id)).toBe(false);
});

test('a question with two labels that look alike is not answered here', async () => {
  const session = fake.addSession();
  fake.state.begin(session.id, 'go on');
  const options = ['\u202eRed', 'Red'].map((label) => ({ label, description: 'warm' }));
  const questions = [{ question: 'Which color?', header: 'Color', options }];
  const { id } = fake.addQuestion({ sessionID: session.id, questions });
  const answer = { instance: 'one', session: session.id, request: id, answers: [['Red']] };
  expect(await stage.post('respond', answer)).toMatchObject({
    status: 422,
    json: { error: expect.stringContaining('look alike') },
  });
  expect(fake.state.questions.has(id)).toBe(true);
});

test('a request that the settings forbid to settle is not settled here', async () => {
  await using stage = await openPageStage({ approve: 'never' });
  const waiting = stage.waiting();
  expect(await stage.post('respond', { ...waiting, reply: 'once' })).toMatchObject({
    status: 409,
    json: { error: expect.stringContaining('approve: never') },
  });
  expect(stage.fake.state.permissions.has(waiting.request)).toBe(true);
});

test('a repeated message is sent once, and a turn is stopped', async () => {
  const session = fake.addSession();
  const message = { instance: 'one', session: session.id, message: 'hello', requestId: 'repeated' };
  for (let times = 0; times < 2; times += 1)
    expect(await stage.post('send', message)).toMatchObject({ status: 200, json: { session: session.id } });
  expect(promptsOf(session.id)).toEqual(['hello']);
  const stopped = await stage.post('abort', { instance: 'one', session: session.id });
  expect(stopped).toMatchObject({ status: 200, json: { text: expect.stringContaining('Stopped') } });
});

test('a message without a session starts a session; a repeated request uses the same session', async () => {
  const earlierSessions = new Set(fake.state.sessions.keys());
  const body = { instance: 'one', session: null, message: 'Tidy up', requestId: 'first' };
  const sessions: string[] = [];
  for (const requestId of ['first', 'first', 'second']) {
    const { status, json } = await stage.post('send', { ...body, requestId });
    expect(status).toBe(200);
    sessions.push(String(json['session']));
  }
  const [first = '', repeated, second] = sessions;
  expect(earlierSessions.has(first)).toBe(false);
  expect(repeated).toBe(first);
  expect(second).not.toBe(first);
  expect(promptsOf(first)).toEqual(['Tidy up']);
});

function promptsOf(session: string): (string | undefined)[] {
  const prompts = fake.state.prompts.filter(({ sessionID }) => sessionID === session);
  return prompts.map(({ body }) => body.parts?.[0]?.text);
}

test('a caller is cut off within a minute once their grant ends or they are no longer the node’s user', async () => {
  const clock = new ManualClock();
  const runtime = testRuntime(stage.instances.fleet);
  await using other = await openPageStage({
    clock,
    startAll: () => Promise.resolve({ runtime, close: () => Promise.resolve() }),
  });
  await using granted = await other.follow(other.fake.addSession().id);
  await using own = await other.follow(fake.addSession().id, { from: OWN_LAPTOP });
  const streams = [granted, own];
  for (const lines of streams) await lines.find('the session', ({ kind }) => kind === 'session');
  await clock.advance(RECHECK_MS);
  expect(streams.map((lines) => lines.closed())).toEqual([false, false]);
  const cleos = (address: string) => tailnetNode({ id: address, addresses: [address], userId: 'user-cleo' });
  other.api.callers.set(COLLEAGUE, whoisOf(cleos(COLLEAGUE), 'cleo@example.com'));
  const grant = { [CAPABILITY]: [{ role: 'drive' }] };
  other.api.callers.set(OWN_LAPTOP, whoisOf(cleos(OWN_LAPTOP), 'cleo@example.com', grant));
  await clock.advance(RECHECK_MS);
  await until('the streams to be cut', () => streams.every((lines) => lines.closed()));
});

test('a keep-alive connection serves files and data', async () => {
  const session = fake.addSession();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (const path of ['/', `${PAGE_PREFIX}app.js`, `${PAGE_PREFIX}v1/changes?instance=one&session=${session.id}`]) {
    const headers = { 'x-opencode-mcp-page': '1' };
    const options = { host: SELF, port: stage.port, path, headers, agent, localAddress: COLLEAGUE };
    const response = await new Promise<IncomingMessage>((resolve) => request(options, resolve).end());
    ports.add(response.socket.localPort);
    expect([path, response.statusCode]).toEqual([path, 200]);
    response.resume();
    await once(response, 'close');
  }
  expect(ports.size).toBe(1);
  agent.destroy();
});

test('a stranger gets nothing, not even the files', async () => {
  expect(await stage.call('/', { from: STRANGER })).toMatchObject({ status: 403 });
  const data = await stage.call(PAGE_PREFIX + FLEET, { from: STRANGER });
  expect(data).toMatchObject({ status: 403, json: { error: expect.stringContaining('eve@example.com') } });
});

test('a reader can see but not act', async () => {
  const { request, ...place } = stage.waiting();
  await using lines = await stage.follow(place.session, { from: READER });
  expect(await lines.find('the session', ({ kind }) => kind === 'session')).toMatchObject({ canDrive: false });
  for (const [name, body] of [
    ['respond', { ...place, request, reply: 'once' }],
    ['send', { ...place, message: 'x', requestId: 'by a reader' }],
    ['abort', place],
  ] as const)
    expect(await stage.post(name, body, { from: READER })).toMatchObject({
      status: 403,
      json: { error: expect.stringContaining('"read"') },
    });
  expect(fake.state.permissions.has(request)).toBe(true);
  expect(promptsOf(place.session)).toHaveLength(1);
  expect(fake.state.statuses.has(place.session)).toBe(true);
});

test('a reader sees the changes of a session in OpenCode 1, but not in OpenCode 2', async () => {
  await using folder = tempDir('page-opencode-2');
  const directory = '/home/ada/project';
  await using opencode2 = await startFakeOpencode2({ home: '/home/ada', directories: { [directory]: {} } });
  await opencode2.register(folder.path);
  await using stage = await openPageStage({ opencodeStateDir: folder.path });
  await until('the service', async () => (await stage.instances.list()).some(({ id }) => id === 'service'));
  const { data: session2 } = await opencode2.json<{ data: { id: string } }>('POST', '/api/session', {
    location: { directory },
  });
  for (const [instance, session, from, status] of [
    ['one', stage.fake.addSession().id, READER, 200],
    ['service', session2.id, COLLEAGUE, 200],
    ['service', session2.id, READER, 403],
  ] as const) {
    const path = `${PAGE_PREFIX}v1/changes?instance=${instance}&session=${session}`;
    expect([instance, from, (await stage.call(path, { from })).status]).toEqual([instance, from, status]);
  }
});
