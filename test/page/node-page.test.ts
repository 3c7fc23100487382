import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';

import { describe, expect, test } from 'vitest';

import { RECHECK_MS } from '../../src/node/access/gate.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { CAPABILITY, OWN_LAPTOP, READER, SELF, STRANGER } from '../node/stage.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { COLLEAGUE, type Line, openPageStage } from './stage.ts';

const FLEET = 'v1/fleet';

function sessionsIn(line: Line): readonly Line[] {
  return (line['sessions'] ?? []) as readonly Line[];
}

const atSession = (id: string, more = ''): string => `v1/session?instance=one&session=${id}${more}`;

describe('the page of a node service', () => {
  test('a browser gets the files with a strict policy', async () => {
    await using stage = await openPageStage();
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

  test('shows this machine’s instances, and each change', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession({ title: 'Fix the build' });
    await using lines = await stage.stream(FLEET);
    const first = await lines.find('the session', (line) => sessionsIn(line).length > 0);
    expect(first).toMatchObject({
      you: { name: expect.stringContaining('cleo@example.com') as string, role: 'drive', all: false },
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

  test('streams a session: messages, new text, requests and state', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession({ title: 'Fix the build' });
    stage.fake.state.begin(session.id, 'one');
    stage.fake.state.finish(session.id, 'It is done.');
    await using lines = await stage.stream(atSession(session.id));
    await lines.find('what it asks for', ({ kind }) => kind === 'asks');
    expect(lines.all.slice(0, 4)).toMatchObject([
      { kind: 'session', title: 'Fix the build', directory: stage.fake.directory, state: 'idle', canDrive: true },
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
    stage.fake.state.begin(session.id, 'two');
    await lines.find('that it is busy', ({ kind, state }) => kind === 'state' && state === 'busy');
    stage.fake.state.say(session.id, 'Hel');
    await lines.find('the first words', (line) => JSON.stringify(line).includes('Hel'));
    stage.fake.state.say(session.id, 'lo');
    await lines.find('the next piece, and no more', ({ kind, text }) => kind === 'text' && text === 'lo');
    stage.fake.state.finish(session.id, '!');
    await lines.find(
      'the whole answer',
      ({ kind, message }) => kind === 'message' && JSON.stringify(message).includes('"Hello!"'),
    );
    await lines.find(
      'that it is idle',
      (line) => line['kind'] === 'state' && line['state'] === 'idle' && lines.all.indexOf(line) > 3,
    );
    stage.fake.state.begin(session.id, 'three');
    const asked = stage.fake.addPermission({ sessionID: session.id, metadata: { command: 'rm -rf build' } });
    const asks = await lines.find(
      'the request',
      (line) => line.kind === 'asks' && JSON.stringify(line).includes(asked.id),
    );
    expect(asks).toMatchObject({
      asks: [
        {
          id: asked.id,
          sessionId: session.id,
          kind: 'permission',
          permission: 'bash',
          command: 'rm -rf build',
        },
      ],
    });
    await lines.find('that it waits', ({ kind, state }) => kind === 'state' && state === 'waiting');
  });

  test('gives a page of older messages, and ends', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    for (let number = 1; number <= 60; number += 1) stage.fake.state.ask(session.id, `message ${number}`);
    await using lines = await stage.stream(atSession(session.id));
    const { older } = await lines.find('the newest', ({ kind }) => kind === 'messages');
    await using rest = await stage.stream(atSession(session.id, `&before=${encodeURIComponent(String(older))}`));
    const page = await rest.find('older ones', ({ kind }) => kind === 'messages');
    expect(JSON.stringify(page)).toContain('message 10"');
    expect(JSON.stringify(page)).not.toContain('message 11"');
    await rest.find('the end', () => rest.closed()).catch(() => {});
    expect(rest.all).toHaveLength(1);
  });

  test('a permission is allowed once, and the record names the caller', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    stage.fake.state.begin(session.id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: session.id });
    const answer = { instance: 'one', session: session.id, request: id, reply: 'once' };
    const first = await stage.post('respond', answer);
    expect(first).toMatchObject({
      status: 200,
      json: { done: true, text: expect.stringContaining('allowed once') as string },
    });
    expect(stage.fake.state.permissions.has(id)).toBe(false);
    const second = await stage.post('respond', answer);
    expect(second).toMatchObject({ status: 200, json: { done: false, gone: true } });
    expect(stage.records).toMatchObject([
      {
        client: { name: expect.stringContaining('cleo@example.com') as string },
        tool: 'respond',
        instances: ['one'],
        session: session.id,
        outcome: 'ok',
      },
      { outcome: 'gone' },
    ]);
  });

  test('of two devices that settle one request together, one does, and the other sees it settled', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    stage.fake.state.begin(session.id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: session.id });
    await using phone = await stage.stream(atSession(session.id));
    await using tablet = await stage.stream(atSession(session.id));
    for (const one of [phone, tablet]) await one.find('the request', (line) => JSON.stringify(line).includes(id));
    const answers = await Promise.all(
      ['once', 'reject'].map((reply) =>
        stage.post('respond', { instance: 'one', session: session.id, request: id, reply }),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(answers.filter(({ json }) => json['done'] === true)).toHaveLength(1);
    expect(answers.filter(({ json }) => json['gone'] === true)).toHaveLength(1);
    for (const one of [phone, tablet])
      await one.find('that nothing waits', (line) => {
        const isEmpty = JSON.stringify(line['asks']) === '[]';
        return isEmpty && one.all.indexOf(line) > one.all.findIndex((each) => JSON.stringify(each).includes(id));
      });
  });

  test('a request is settled only through its own session', async () => {
    await using stage = await openPageStage();
    const [mine, other] = [stage.fake.addSession(), stage.fake.addSession()];
    for (const { id } of [mine, other]) stage.fake.state.begin(id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: other.id });
    const answer = await stage.post('respond', { instance: 'one', session: mine.id, request: id, reply: 'once' });
    expect(answer).toMatchObject({ status: 200, json: { done: false, gone: true } });
    expect(stage.fake.state.permissions.has(id)).toBe(true);
  });

  test('a question is answered with labels, even if they are shown differently', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    stage.fake.state.begin(session.id, 'go on');
    const label = '\u202eRed';
    const { id } = stage.fake.addQuestion({
      sessionID: session.id,
      questions: [{ question: 'Which color?', header: 'Color', options: [{ label, description: 'warm' }] }],
    });
    await using lines = await stage.stream(atSession(session.id));
    expect(await lines.find('the question', ({ kind }) => kind === 'asks')).toMatchObject({
      asks: [
        {
          id,
          kind: 'question',
          questions: [
            {
              header: 'Color',
              question: 'Which color?',
              options: [{ label: 'Red', description: 'warm' }],
              multiple: false,
              custom: true,
            },
          ],
        },
      ],
    });
    const endpoint = { url: stage.fake.url, route: 'loopback' } as const;
    const events = await openEvents({ endpoint, credential: { username: 'opencode', password: 'pa55word' } }, '/event');
    const answer = { instance: 'one', session: session.id, request: id, answers: [['Red']] };
    expect(await stage.post('respond', answer)).toMatchObject({ json: { done: true } });
    for await (const { type, properties } of events) {
      if (type !== 'question.replied') continue;
      expect(properties).toMatchObject({ requestID: id, answers: [[label]] });
      break;
    }
    expect(stage.fake.state.questions.has(id)).toBe(false);
  });

  test('a request that the settings forbid to settle is not settled here', async () => {
    await using stage = await openPageStage({ approve: 'never' });
    const session = stage.fake.addSession();
    stage.fake.state.begin(session.id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: session.id });
    const answer = await stage.post('respond', { instance: 'one', session: session.id, request: id, reply: 'once' });
    expect(answer).toMatchObject({
      status: 409,
      json: { error: expect.stringContaining('approve: never') as string },
    });
    expect(stage.fake.state.permissions.has(id)).toBe(true);
  });

  test('a caller whose grant ends is cut off within a minute', async () => {
    const clock = new ManualClock();
    await using stage = await openPageStage({ clock });
    const session = stage.fake.addSession();
    await using lines = await stage.stream(atSession(session.id));
    await lines.find('the session', ({ kind }) => kind === 'session');
    const colleague = tailnetNode({ id: 'colleague', addresses: [COLLEAGUE], userId: 'user-cleo' });
    stage.api.callers.set(COLLEAGUE, whoisOf(colleague, 'cleo@example.com'));
    await clock.advance(RECHECK_MS);
    await until('the stream to be cut', () => lines.closed());
  });

  test('a caller who is no longer the node’s user no longer sees its other machines', async () => {
    const clock = new ManualClock();
    await using elsewhere = await openPageStage();
    await using stage = await openPageStage({
      clock,
      startAll: () =>
        Promise.resolve({ runtime: testRuntime(elsewhere.instances.fleet), close: () => Promise.resolve() }),
    });
    const session = elsewhere.fake.addSession();
    await using lines = await stage.stream(atSession(session.id), { from: OWN_LAPTOP });
    await lines.find('the session', ({ kind }) => kind === 'session');
    const laptop = tailnetNode({ id: 'laptop', addresses: [OWN_LAPTOP], userId: 'user-cleo' });
    const grant = { [CAPABILITY]: [{ role: 'drive' }] };
    await clock.advance(RECHECK_MS);
    expect(lines.closed()).toBe(false);
    stage.api.callers.set(OWN_LAPTOP, whoisOf(laptop, 'cleo@example.com', grant));
    await clock.advance(RECHECK_MS);
    await until('the stream to be cut', () => lines.closed());
  });

  test('a repeated message is sent once, and a turn is stopped', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    const message = { instance: 'one', session: session.id, message: 'hello', requestId: 'r1' };
    const first = await stage.post('send', message);
    expect(first).toMatchObject({ status: 200, json: { session: session.id } });
    expect(await stage.post('send', message)).toMatchObject({ status: 200, json: { session: session.id } });
    expect(stage.fake.state.prompts.map(({ body }) => body.parts?.[0]?.text)).toEqual(['hello']);
    const stopped = await stage.post('abort', { instance: 'one', session: session.id });
    expect(stopped).toMatchObject({ status: 200, json: { text: expect.stringContaining('Stopped') as string } });
  });
});

test('a kept connection serves the files and the data one after the other', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
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

describe('callers without rights', () => {
  test('a stranger gets nothing, not even the files', async () => {
    await using stage = await openPageStage();
    expect(await stage.call('/', { from: STRANGER })).toMatchObject({ status: 403 });
    const data = await stage.call(PAGE_PREFIX + FLEET, { from: STRANGER });
    expect(data).toMatchObject({ status: 403, json: { error: expect.stringContaining('eve@example.com') as string } });
  });

  test('a reader sees and cannot act', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    stage.fake.state.begin(session.id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: session.id });
    await using lines = await stage.stream(atSession(session.id), { from: READER });
    expect(await lines.find('the session', ({ kind }) => kind === 'session')).toMatchObject({ canDrive: false });
    for (const [name, body] of [
      ['respond', { instance: 'one', session: session.id, request: id, reply: 'once' }],
      ['send', { instance: 'one', session: session.id, message: 'x', requestId: 'r' }],
      ['abort', { instance: 'one', session: session.id }],
    ] as const)
      expect(await stage.post(name, body, { from: READER })).toMatchObject({
        status: 403,
        json: { error: expect.stringContaining('"read"') as string },
      });
    expect(stage.fake.state.permissions.has(id)).toBe(true);
    expect(stage.fake.state.prompts).toHaveLength(1);
  });
});
