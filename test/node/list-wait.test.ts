import { once } from 'node:events';

import { describe, expect, test } from 'vitest';

import { FEED_LOOK_MS } from '../../src/node/list/list-feed.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import { type Answer, type NodeStage, openNodeStage, OWN_LAPTOP, READER, SELF, STRANGER } from './stage.ts';

const MOST_WAIT_S = 25;

async function tagOf(stage: NodeStage): Promise<string> {
  return String((await stage.call(LIST_PATH)).headers.etag);
}

/** A request for the list that waits for it to change; it is being held when this resolves. */
async function hold(
  stage: NodeStage,
  { seconds = '20', from = OWN_LAPTOP, tag = '' } = {},
): Promise<{ readonly answer: Promise<Answer> }> {
  const before = stage.service.waiting;
  const known = tag === '' ? await tagOf(stage) : tag;
  const answer = stage.call(LIST_PATH, { from, headers: { 'if-none-match': known, prefer: `wait=${seconds}` } });
  // Whoever awaits it sees how it ends.
  answer.catch(() => {});
  await until('the request to be held', () => stage.service.waiting > before);
  return { answer };
}

function idsIn({ text }: Answer): readonly string[] {
  const listing: Listing = JSON.parse(text);
  return listing.instances.map(({ name }) => name);
}

describe('the list has an entity tag', () => {
  test('equal for equal lists, different for different ones', async () => {
    let ours = true;
    await using stage = await openNodeStage({
      ports: { ours: (claims) => Promise.resolve(ours ? claims : []) },
    });
    const tag = await tagOf(stage);
    expect(tag).toMatch(/^"[A-Za-z0-9_-]{43}"$/);
    expect(await tagOf(stage)).toBe(tag);
    ours = false;
    expect(await tagOf(stage)).not.toBe(tag);
  });

  test.each([
    ['that tag', (tag: string) => tag, 304],
    ['that tag, weakly', (tag: string) => `W/${tag}`, 304],
    ['that tag among others', (tag: string) => `"a, b", ${tag}`, 304],
    ['any', () => '*', 304],
    ['another tag', () => '"other"', 200],
    ['that tag without its quotes', (tag: string) => tag.replaceAll('"', ''), 200],
    ['nothing', () => '', 200],
  ])('who knows %s', async (_, knownAs, status) => {
    await using stage = await openNodeStage();
    const tag = await tagOf(stage);
    const answer = await stage.call(LIST_PATH, { headers: { 'if-none-match': knownAs(tag) } });
    expect([answer.status, answer.headers.etag, answer.text === '']).toEqual([status, tag, status === 304]);
  });

  test.each(['wait=0', 'wait=-1', 'wait=x', 'wait', 'respond-async', 'await=9', 'wait=1.5'])(
    'and is not waited with for %s',
    async (prefer) => {
      await using stage = await openNodeStage();
      const headers = { 'if-none-match': await tagOf(stage), prefer };
      expect((await stage.call(LIST_PATH, { headers })).status).toBe(304);
    },
  );

  test('a caller without the list gets it at once, whatever wait it prefers', async () => {
    await using stage = await openNodeStage();
    expect((await stage.call(LIST_PATH, { headers: { prefer: 'wait=20' } })).status).toBe(200);
    const headers = { prefer: 'wait=20', 'if-none-match': '"old"' };
    expect((await stage.call(LIST_PATH, { headers })).status).toBe(200);
  });
});

describe('a held request is answered', () => {
  test('when an instance starts, and when it ends', async () => {
    await using stage = await openNodeStage();
    const started = await hold(stage);
    await using second = await startFakeOpencode();
    await stage.registry.add({ name: 'second', port: second.port, cwd: second.directory, id: 'second' });
    const answer = await started.answer;
    expect([answer.status, idsIn(answer)]).toEqual([200, ['one', 'second']]);
    const ended = await hold(stage, { tag: String(answer.headers.etag) });
    await stage.registry.remove('second');
    expect(idsIn(await ended.answer)).toEqual(['one']);
  });

  test('when a process vanished, found by one read a second for all held requests', async () => {
    const clock = new ManualClock();
    let looks = 0;
    let ours = true;
    await using stage = await openNodeStage({
      clock,
      ports: {
        ours(claims) {
          looks += 1;
          return Promise.resolve(ours ? claims : []);
        },
      },
    });
    const tag = await tagOf(stage);
    const held = [await hold(stage, { tag }), await hold(stage, { tag }), await hold(stage, { tag, from: READER })];
    await clock.advance(FEED_LOOK_MS);
    const before = looks;
    await clock.advance(5 * FEED_LOOK_MS);
    expect(looks - before).toBe(5);
    expect(stage.service.waiting).toBe(3);
    ours = false;
    await clock.advance(FEED_LOOK_MS);
    for (const { answer } of held) expect(idsIn(await answer)).toEqual([]);
    const after = looks;
    await clock.advance(5 * FEED_LOOK_MS);
    // Nobody waits any more.
    expect(looks).toBe(after);
  });

  test('when this machine has another name', async () => {
    await using stage = await openNodeStage();
    const { answer } = await hold(stage);
    stage.api.set({ self: tailnetNode({ id: 'self', addresses: [SELF], dnsName: 'renamed.tail0.ts.net' }) });
    expect((await answer).text).toContain('renamed.tail0.ts.net');
  });

  test.each([
    ['1', 1],
    ['"3"', 3],
    ['2; x=y, wait=9', 2],
    ['9999999', MOST_WAIT_S],
  ])('when the time of wait=%s is over: %d s', async (seconds, expected) => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const { answer } = await hold(stage, { seconds });
    await clock.advance(expected * 1000 - 1);
    expect(stage.service.waiting).toBe(1);
    await clock.advance(1);
    const { status, headers, text } = await answer;
    expect([status, headers['preference-applied'], text]).toEqual([304, `wait=${expected}`, '']);
  });
});

describe('the caller of a held request is identified again', () => {
  const bob = tailnetNode({ id: 'reader', addresses: [READER], userId: 'user-bob' });
  test.each([
    ['before it hears of a change', (stage: NodeStage) => stage.registry.remove('one')],
    ['when its time is over', (_: NodeStage, clock: ManualClock) => clock.advance(1000)],
  ])('%s', async (_, end) => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const { answer } = await hold(stage, { from: READER, seconds: '1' });
    // No time has passed, so that what whois said would still count for the next request of the connection.
    stage.api.callers.set(READER, whoisOf(bob, 'bob@example.com'));
    await end(stage, clock);
    expect(await answer).toMatchObject({ status: 403, text: expect.stringContaining('bob@example.com') });
  });

  test('and refused while whois fails', async () => {
    await using stage = await openNodeStage();
    const { answer } = await hold(stage);
    stage.api.callers.set(OWN_LAPTOP, () => Promise.reject(new Error('tailscaled is busy')));
    await stage.registry.remove('one');
    expect(await answer).toMatchObject({ status: 503, text: expect.stringContaining('tailscaled is busy') });
  });
});

describe('a held request ends', () => {
  test('when the caller disconnects', async () => {
    await using stage = await openNodeStage();
    const socket = await stage.connect();
    socket.write(`GET ${LIST_PATH} HTTP/1.1\r\nHost: ${SELF}\r\nIf-None-Match: *\r\nPrefer: wait=20\r\n\r\n`);
    await until('the request to be held', () => stage.service.waiting === 1);
    socket.destroy();
    await until('it to be let go', () => stage.service.waiting === 0 && stage.service.connections === 0);
  });

  test.each<[string, (stage: NodeStage) => unknown]>([
    ['the service ends', ({ service }) => service.close()],
    ['tailscaled logs out', ({ api }) => api.set({ backendState: 'NeedsLogin', self: undefined })],
  ])('when %s', async (_, end) => {
    await using stage = await openNodeStage();
    const { answer } = await hold(stage);
    const said = stage.log.length;
    void end(stage);
    await expect(answer).rejects.toThrow(/hang up|ECONNRESET/);
    await until('it to be let go', () => stage.service.waiting === 0);
    expect(stage.log.slice(said).filter(({ message }) => message === 'refused')).toEqual([]);
  });
});

test('polls of the list are logged per caller when the verdict changes, otherwise at debug level', async () => {
  await using stage = await openNodeStage();
  const said = (): readonly string[] =>
    stage.log
      .filter(({ message }) => message === 'admitted' || message === 'refused')
      .map(({ level, message, fields }) => `${level} ${message} ${String(fields['caller']).split('@')[0]}`);
  for (let poll = 0; poll < 3; poll += 1) {
    await stage.call(LIST_PATH);
    await stage.call(LIST_PATH, { from: STRANGER });
  }
  expect(said().filter((line) => !line.startsWith('debug'))).toEqual(['info admitted ada', 'warn refused eve']);
  expect(said()).toHaveLength(6);
  const { addresses } = tailnetNode({ id: 'stranger', addresses: [STRANGER] });
  stage.api.join(
    tailnetNode({ id: 'stranger', addresses }),
    whoisOf(tailnetNode({ id: 'stranger' }), 'eve@example.com'),
  );
  for (let poll = 0; poll < 2; poll += 1) await stage.call(LIST_PATH, { from: STRANGER });
  await stage.ask('/session', { from: STRANGER });
  await stage.ask('/session', { from: STRANGER });
  expect(said().slice(6)).toEqual([
    'info admitted eve',
    'debug admitted eve',
    // What is no poll of the list is always told.
    'info admitted eve',
    'info admitted eve',
  ]);
});

describe('one machine', () => {
  test('cannot use up the requests of others, and gets 429', async () => {
    await using stage = await openNodeStage({ maxRequestsPerCaller: 3 });
    const held = [await hold(stage), await hold(stage), await hold(stage)];
    expect(await stage.call(LIST_PATH)).toMatchObject({
      status: 429,
      text: expect.stringContaining('too many requests'),
    });
    expect((await stage.ask('/session')).status).toBe(429);
    expect(stage.seen).toEqual([]);
    // One that goes wild must not fill the log.
    expect(stage.log.filter(({ level, message }) => level === 'warn' && message === 'refused')).toHaveLength(1);
    expect((await stage.call(LIST_PATH, { from: READER })).status).toBe(200);
    await stage.registry.remove('one');
    await Promise.all(held.map(({ answer }) => answer));
    await until('the places to be free again', async () => (await stage.call(LIST_PATH)).status === 200);
  });

  test('has the same limit on one connection and by WebSockets', async () => {
    await using stage = await openNodeStage({
      maxRequestsPerCaller: 2,
      onUpgrade: (_, socket) =>
        void socket
          .on('error', () => {})
          .write('HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'),
    });
    const upgrade = `GET ${stage.path('/pty/p/connect')} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
    const first = await stage.connect();
    first.write(upgrade);
    const [answer] = (await once(first, 'data')) as [Buffer];
    expect(answer.toString()).toContain('101');
    const wait = `GET ${LIST_PATH} HTTP/1.1\r\nHost: ${SELF}\r\nIf-None-Match: *\r\nPrefer: wait=20\r\n\r\n`;
    const second = await stage.connect();
    second.write(wait.repeat(50));
    await until('one of them to be held', () => stage.service.waiting === 1);
    expect(await stage.raw(upgrade)).toContain('HTTP/1.1 429');
    expect(stage.service.waiting).toBe(1);
    first.destroy();
    second.destroy();
    await until('the places to be free again', async () => (await stage.call(LIST_PATH)).status === 200);
  });
});
