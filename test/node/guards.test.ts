import { once } from 'node:events';

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { readSocketTable } from '../../src/base/socket-table.ts';
import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { until, within } from '../rig/wait.ts';
import { DIRECTORY, ID, type NodeStage, openNodeStage, OWN_LAPTOP, READER, requestText } from './stage.ts';

describe('a request is refused before it reaches the instance', () => {
  let stage: NodeStage;
  beforeAll(async () => {
    stage = await openNodeStage();
  });
  afterEach(() => expect(stage.seen.splice(0)).toEqual([]));
  afterAll(() => stage[Symbol.asyncDispose]());

  test.each([
    ['another Host', { host: 'evil.example' }, 421],
    ['another Origin', { origin: 'https://evil.example' }, 403],
  ])('with %s', async (_, headers, status) => {
    expect((await stage.ask('/session?directory=/tmp/evil', { headers })).status).toBe(status);
    expect((await stage.call(LIST_PATH, { headers })).status).toBe(status);
  });

  const PATH = `${INSTANCE_PREFIX}${ID}/session`;
  const CLOSE = 'Connection: close';
  const post = (...headers: readonly string[]): string => requestText(PATH, headers, 'POST');
  test.each([
    [
      'a length and chunks',
      `${post('Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n`,
    ],
    ['two lengths', `${post('Content-Length: 4', 'Content-Length: 5')}abcde`],
    ['two transfer encodings', `${post('Transfer-Encoding: chunked', 'Transfer-Encoding: identity')}0\r\n\r\n`],
    ['a space before a colon', `${post('Content-Length : 4')}abcd`],
    ['a bare line feed', `${post('X: y\nContent-Length: 4')}abcd`],
    ['a folded header', `${post('X: y\r\n Content-Length: 4')}abcd`],
    ['two hosts', post('Host: evil.example', CLOSE)],
    ['no host', post(CLOSE).replace(/Host: .*\r\n/, '')],
    ['dot segments in its path', requestText(`${INSTANCE_PREFIX}${ID}/../x`, [CLOSE])],
    ['a header above 16 KiB', requestText(PATH, [`X: ${'x'.repeat(20_000)}`])],
    ['the method TRACE', requestText(PATH, [CLOSE], 'TRACE')],
  ])('with %s', async (_, request) => {
    expect(await stage.raw(request)).toMatch(/^HTTP\/1\.1 4/);
  });

  test('with the method CONNECT', async () => {
    expect(await stage.raw(requestText(PATH, [CLOSE], 'CONNECT'))).not.toContain('200');
  });
});

describe('the role read', () => {
  test('reads its routes with the directory pinned', async () => {
    await using stage = await openNodeStage();
    const directory = encodeURIComponent(DIRECTORY);
    await stage.ask('/session?limit=3&auth=x', {
      from: READER,
      headers: { 'x-opencode-directory': '%2Ftmp%2Fevil', 'X-OpenCode-Workspace': 'evil' },
    });
    expect(stage.seen).toMatchObject([{ url: `/session?limit=3&directory=${directory}` }]);
    expect(Object.keys(stage.seen[0]?.headers ?? {}).filter((name) => name.startsWith('x-opencode'))).toEqual([]);
    expect((await stage.ask(`/session?directory=/tmp/evil`, { from: READER })).status).toBe(403);
    expect((await stage.ask('/session', { from: READER, method: 'POST', body: '{}' })).status).toBe(403);
    expect((await stage.list({ from: READER })).instances.length).toBe(1);
    expect(stage.seen.length).toBe(1);
  });

  test('sees only sessions of the instance’s own directory', async () => {
    const sessions = [
      { id: 'ses_own', directory: DIRECTORY },
      { id: 'ses_foreign', directory: '/home/ada/other' },
    ];
    await using stage = await openNodeStage({
      handler: ({ url }, response) =>
        void response
          .setHeader('content-type', 'application/json')
          .end(JSON.stringify(url?.startsWith('/session?') === true ? sessions : { url })),
    });
    const statusOf = async (path: string) => (await stage.ask(path, { from: READER })).status;
    expect(await statusOf('/session/ses_own/message')).toBe(200);
    expect(await statusOf('/session/ses_own')).toBe(200);
    expect(await statusOf('/session/ses_foreign/message')).toBe(404);
    expect(await statusOf('/session/ses_none')).toBe(404);
    expect(stage.seen.filter(({ url }) => /ses_(foreign|none)/.test(url))).toEqual([]);
  });
});

describe('limits', () => {
  const QUICK = { headersMs: 300, requestMs: 600, checkMs: 50 };

  test.each([
    ['a head that does not end', `GET ${LIST_PATH} HTTP/1.1\r\nHost: self\r\n`, /^HTTP\/1\.1 408/],
    ['a connection without a request', '', /^(HTTP\/1\.1 408|$)/],
  ])('cut %s', async (_, request, answer) => {
    // Only the limit for heads can end it.
    await using stage = await openNodeStage({ limits: { ...QUICK, requestMs: 600_000 } });
    expect(await stage.raw(request)).toMatch(answer);
  });

  test('cut a body that does not end, but no event stream', async () => {
    let write: (text: string) => void = () => {};
    await using stage = await openNodeStage({
      limits: QUICK,
      handler: (_, response) => {
        response.writeHead(200).flushHeaders();
        write = (text) => void response.write(text);
      },
    });
    const stream = await stage.open(requestText(stage.path('/event')));
    await stream.receives('200 OK');
    // Once the limit has cut this younger request, it has run out for the stream too.
    await stage.raw(`${requestText(stage.path('/session'), ['Content-Length: 10'], 'POST')}abc`);
    write('still here');
    await stream.receives('still here');
    stream.socket.destroy();
    await until('both connections to be gone', () => stage.service.connections === 0);
  });

  test('close idle connections to make room for a new one', async () => {
    await using stage = await openNodeStage({ maxConnections: 20 });
    for (let count = 0; count < 100; count += 1) await stage.open();
    await until('the oldest connections to be closed', () => stage.service.connections <= 20);
    expect((await stage.list()).instances.length).toBe(1);
    expect(stage.service.connections).toBeLessThanOrEqual(20);
  });

  test('refuse a new connection if all others are busy', async () => {
    let answer: () => void = () => {};
    await using stage = await openNodeStage({
      maxConnections: 2,
      handler: (_, response) => void (answer = () => void response.end('done')),
    });
    const firstAnswer = stage.ask('/session');
    const secondAnswer = stage.ask('/session/status-of-all');
    await until('both requests to be in flight', () => stage.seen.length === 2);
    const { socket } = await stage.open();
    if (!socket.closed) await within(once(socket, 'close'), 'the third connection to be refused');
    answer();
    expect((await Promise.race([firstAnswer, secondAnswer])).text).toBe('done');
    void stage.service.close();
    await Promise.allSettled([firstAnswer, secondAnswer]);
  });
});

describe('userspace networking', () => {
  const LOCAL = { from: '127.0.0.1', headers: { host: 'self' } };

  /** The laptop's connections arrive on loopback, as tailscaled forwards them. */
  async function openUserspaceStage(
    tailscaledUid: () => number | undefined,
    readSockets = readSocketTable,
  ): Promise<NodeStage> {
    const stage = await openNodeStage({
      tun: false,
      loopbackPeer: { tailscaledUid: () => Promise.resolve(tailscaledUid()), readSockets },
    });
    const laptop = stage.api.callers.get(OWN_LAPTOP);
    if (laptop !== undefined) stage.api.callers.set('127.0.0.1', laptop);
    return stage;
  }

  test('refuses a loopback caller that is not tailscaled, whatever whois answers', async () => {
    let uid: number | undefined = 65_000;
    await using stage = await openUserspaceStage(() => uid);
    expect(await stage.call(LIST_PATH, LOCAL)).toMatchObject({
      status: 403,
      text: expect.stringContaining(
        'did not come through tailscaled: the other end of the connection belongs to user id',
      ),
    });
    expect(stage.api.asked).toEqual([]);
    uid = process.getuid?.();
    expect((await stage.call(LIST_PATH, LOCAL)).status).toBe(200);
  });

  test('reads the kernel’s table again if it lacks the connection', async () => {
    let reads = 0;
    await using stage = await openUserspaceStage(
      () => process.getuid?.(),
      async () => ((reads += 1) > 2 ? readSocketTable() : []),
    );
    expect((await stage.call(LIST_PATH, LOCAL)).status).toBe(200);
    expect(reads).toBe(3);
  });
});
