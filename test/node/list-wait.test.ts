import { describe, expect, test } from 'vitest';

import { FEED_READ_INTERVAL_MS } from '../../src/node/list/list-feed.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import type { Answer } from './send-request.ts';
import {
  acceptTerminal,
  type ClockedStage,
  openClockedStage,
  type NodeStage,
  openNodeStage,
  READER,
  requestText,
  SELF,
  STRANGER,
  UPGRADE,
} from './stage.ts';

/** Header lines that hold a request for the list until it changes. */
const WAIT = ['If-None-Match: *', 'Prefer: wait=20'];

async function tagOf(stage: NodeStage): Promise<string> {
  return String((await stage.call(LIST_PATH)).headers.etag);
}

function namesIn({ text }: Answer): readonly string[] {
  const listing: Listing = JSON.parse(text);
  return listing.instances.map(({ name }) => name);
}

describe('the entity tag of the list', () => {
  test('is equal for equal lists and different for different lists', async () => {
    let isOurs = true;
    await using stage = await openNodeStage({
      ports: { ours: (claims) => Promise.resolve(isOurs ? claims : []) },
    });
    const tag = await tagOf(stage);
    expect(tag).toMatch(/^"[A-Za-z0-9_-]{43}"$/);
    expect(await tagOf(stage)).toBe(tag);
    isOurs = false;
    expect(await tagOf(stage)).not.toBe(tag);
  });

  test('holds a request only if it matches and the request asks to wait', async () => {
    await using stage = await openNodeStage();
    const tag = await tagOf(stage);
    for (const [known, status, prefer = ''] of [
      [tag, 304],
      [`W/${tag}`, 304],
      [`"a, b", ${tag}`, 304],
      ['*', 304],
      ['"other"', 200],
      [tag.replaceAll('"', ''), 200],
      ['', 200],
      ...['wait=0', 'wait=-1', 'wait=x', 'wait', 'respond-async', 'await=9', 'wait=1.5'].map(
        (text) => [tag, 304, text] as const,
      ),
      ['', 200, 'wait=20'],
      ['"old"', 200, 'wait=20'],
    ] as const) {
      const answer = await stage.call(LIST_PATH, { headers: { 'if-none-match': known, prefer } });
      const expected = [status, tag, status === 304];
      expect([answer.status, answer.headers.etag, answer.text === ''], `${known} ${prefer}`).toEqual(expected);
    }
  });
});

describe('a held request is answered', () => {
  test('when an instance starts, and when it ends', async () => {
    await using stage = await openNodeStage();
    const started = await stage.hold(LIST_PATH);
    await using second = await startFakeOpencode();
    await stage.registry.add({ name: 'second', port: second.port, cwd: second.directory, id: 'second' });
    const answer = await started.answer;
    expect([answer.status, namesIn(answer)]).toEqual([200, ['one', 'second']]);
    const ended = await stage.hold(LIST_PATH, { tag: String(answer.headers.etag) });
    await stage.registry.remove('second');
    expect(namesIn(await ended.answer)).toEqual(['one']);
  });

  test('when a process has ended, which one read per second detects for all held requests', async () => {
    let portReads = 0;
    let isOurs = true;
    await using stage = await openClockedStage({
      ports: {
        ours(claims) {
          portReads += 1;
          return Promise.resolve(isOurs ? claims : []);
        },
      },
    });
    const tag = await tagOf(stage);
    const held = [
      await stage.hold(LIST_PATH, { tag }),
      await stage.hold(LIST_PATH, { tag }),
      await stage.hold(LIST_PATH, { tag, from: READER }),
    ];
    await stage.clock.advance(FEED_READ_INTERVAL_MS);
    const before = portReads;
    await stage.clock.advance(5 * FEED_READ_INTERVAL_MS);
    expect(portReads - before).toBe(5);
    expect(stage.service.waiting).toBe(3);
    isOurs = false;
    await stage.clock.advance(FEED_READ_INTERVAL_MS);
    for (const { answer } of held) expect(namesIn(await answer)).toEqual([]);
    const after = portReads;
    await stage.clock.advance(5 * FEED_READ_INTERVAL_MS);
    // No request is held now.
    expect(portReads).toBe(after);
  });

  test('when this machine is renamed', async () => {
    await using stage = await openClockedStage();
    const { answer } = await stage.hold(LIST_PATH);
    await stage.change({ self: tailnetNode({ id: 'self', addresses: [SELF], dnsName: 'renamed.tail0.ts.net' }) });
    expect((await answer).text).toContain('renamed.tail0.ts.net');
  });

  test.each([
    ['1', 1],
    ['"3"', 3],
    ['2; x=y, wait=9', 2],
    ['9999999', 25],
  ])('when the time of wait=%s, which is %d s, is over', async (seconds, expected) => {
    await using stage = await openClockedStage();
    const { answer } = await stage.hold(LIST_PATH, { seconds });
    await stage.clock.advance(expected * 1000 - 1);
    expect(stage.service.waiting).toBe(1);
    await stage.clock.advance(1);
    const { status, headers, text } = await answer;
    expect([status, headers['preference-applied'], text]).toEqual([304, `wait=${expected}`, '']);
  });
});

describe('the caller of a held request is identified again', () => {
  const bob = tailnetNode({ id: 'reader', addresses: [READER], userId: 'user-bob' });
  const withoutGrant = whoisOf(bob, 'bob@example.com');
  const removeInstance = ({ registry }: ClockedStage): Promise<void> => registry.remove('one');
  test.each([
    ['before the answer with a change', withoutGrant, removeInstance, 403, 'bob@example.com'],
    ['when the wait times out', withoutGrant, ({ clock }: ClockedStage) => clock.advance(1000), 403, 'bob@example.com'],
    ['and refused while whois fails', () => Promise.reject(new Error('too busy')), removeInstance, 503, 'too busy'],
  ])('%s', async (_, whois, end, status, text) => {
    await using stage = await openClockedStage();
    const { answer } = await stage.hold(LIST_PATH, { from: READER, seconds: '1' });
    // No time has passed, so the cached whois answer would still admit the connection's next request.
    stage.api.callers.set(READER, whois);
    await end(stage);
    expect(await answer).toMatchObject({ status, text: expect.stringContaining(text) });
  });
});

describe('a held request ends', () => {
  test('when the caller disconnects', async () => {
    await using stage = await openNodeStage();
    const { socket } = await stage.open(requestText(LIST_PATH, WAIT));
    await until('the request to be held', () => stage.service.waiting === 1);
    socket.destroy();
    await until('the request to end', () => stage.service.waiting === 0 && stage.service.connections === 0);
  });

  test.each<[string, (stage: ClockedStage) => unknown]>([
    ['the service ends', ({ service }) => service.close()],
    ['tailscaled logs out', ({ change }) => change({ backendState: 'NeedsLogin', self: undefined })],
  ])('when %s', async (_, end) => {
    await using stage = await openClockedStage();
    const { answer } = await stage.hold(LIST_PATH);
    const loggedBefore = stage.log.length;
    void end(stage);
    await expect(answer).rejects.toThrow(/hang up|ECONNRESET/);
    await until('the request to end', () => stage.service.waiting === 0);
    expect(stage.log.slice(loggedBefore).filter(({ message }) => message === 'refused')).toEqual([]);
  });
});

test('polls of the list are logged per caller when the verdict changes, otherwise at debug level', async () => {
  await using stage = await openNodeStage();
  const logged = (): readonly string[] =>
    stage.log
      .filter(({ message }) => message === 'admitted' || message === 'refused')
      .map(({ level, message, fields }) => `${level} ${message} ${String(fields['caller']).split('@')[0]}`);
  for (let poll = 0; poll < 3; poll += 1) {
    await stage.call(LIST_PATH);
    await stage.call(LIST_PATH, { from: STRANGER });
  }
  expect(logged().filter((line) => !line.startsWith('debug'))).toEqual(['info admitted ada', 'warn refused eve']);
  expect(logged()).toHaveLength(6);
  const node = tailnetNode({ id: 'stranger', addresses: [STRANGER] });
  stage.api.join(node, whoisOf(node, 'eve@example.com'));
  for (let poll = 0; poll < 2; poll += 1) await stage.call(LIST_PATH, { from: STRANGER });
  await stage.ask('/session', { from: STRANGER });
  await stage.ask('/session', { from: STRANGER });
  expect(logged().slice(6)).toEqual([
    'info admitted eve',
    'debug admitted eve',
    // Other requests are always logged.
    'info admitted eve',
    'info admitted eve',
  ]);
});

describe('one machine', () => {
  test('cannot use up the request limit of others, and gets 429', async () => {
    await using stage = await openNodeStage({ maxRequestsPerCaller: 3 });
    const held = [await stage.hold(LIST_PATH), await stage.hold(LIST_PATH), await stage.hold(LIST_PATH)];
    expect(await stage.call(LIST_PATH)).toMatchObject({
      status: 429,
      text: expect.stringContaining('too many requests'),
    });
    expect((await stage.ask('/session')).status).toBe(429);
    expect(stage.seen).toEqual([]);
    // A program that loops must not fill the log.
    expect(stage.log.filter(({ level, message }) => level === 'warn' && message === 'refused')).toHaveLength(1);
    expect((await stage.call(LIST_PATH, { from: READER })).status).toBe(200);
    await stage.registry.remove('one');
    await Promise.all(held.map(({ answer }) => answer));
    await until('the limit to have room', async () => (await stage.call(LIST_PATH)).status === 200);
  });

  test('has the same limit for requests on one connection and for WebSockets', async () => {
    await using stage = await openNodeStage({ maxRequestsPerCaller: 2, onUpgrade: acceptTerminal() });
    const upgrade = requestText(stage.path('/pty/p/connect'), UPGRADE);
    const first = await stage.open(upgrade);
    await first.receives('101');
    const second = await stage.open(requestText(LIST_PATH, WAIT).repeat(50));
    await until('one request to be held', () => stage.service.waiting === 1);
    expect(await stage.raw(upgrade)).toContain('HTTP/1.1 429');
    expect(stage.service.waiting).toBe(1);
    first.socket.destroy();
    second.socket.destroy();
    await until('the limit to have room', async () => (await stage.call(LIST_PATH)).status === 200);
  });
});
