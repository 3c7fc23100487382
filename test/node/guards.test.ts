import { once } from 'node:events';
import type { Socket } from 'node:net';

import { describe, expect, test } from 'vitest';

import { readSocketTable } from '../../src/base/socket-table.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { until, within } from '../rig/wait.ts';
import { DIRECTORY, ID, openNodeStage, OWN_LAPTOP, READER, SELF } from './stage.ts';

describe('web pages', () => {
  test.each([
    ['a name that was pointed here', { host: 'evil.example' }, 421],
    ['a name that only begins as ours', { host: 'self.tail0.ts.net.evil.example' }, 421],
    ['a name with user info', { host: 'self.tail0.ts.net@evil.example' }, 421],
    ['another address of the machine', { host: '127.0.0.1:4095' }, 421],
    ['a foreign origin', { origin: 'https://evil.example' }, 403],
    ['an opaque origin', { origin: 'null' }, 403],
    ['our name with another port as origin', { origin: `http://${SELF}:1` }, 403],
    ['a plain GET of a browser, which has no origin', { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)' }, 403],
    ['a plain GET with what browsers add', { 'sec-fetch-site': 'cross-site' }, 403],
  ])('%s', async (_, headers, status) => {
    await using stage = await openNodeStage();
    expect((await stage.ask('/session?directory=/tmp/evil', { headers })).status).toBe(status);
    expect((await stage.call(LIST_PATH, { headers })).status).toBe(status);
    expect(stage.seen).toEqual([]);
  });

  test.each(['self', 'SELF.tail0.ts.net', 'self.tail0.ts.net:4095', 'self.tail0.ts.net.', SELF])(
    'our own name is served: %s',
    async (host) => {
      await using stage = await openNodeStage();
      expect((await stage.call(LIST_PATH, { headers: { host, origin: `http://${host.toLowerCase()}` } })).status).toBe(
        200,
      );
    },
  );
});

describe('ambiguous requests', () => {
  const head = (extra: string): string =>
    `POST /opencode-mcp/v1/i/${ID}/session HTTP/1.1\r\nHost: ${SELF}\r\n${extra}\r\n`;
  test.each([
    [
      'a length and chunks',
      `Content-Length: 4\r\nTransfer-Encoding: chunked\r\n`,
      '0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    ['two lengths', 'Content-Length: 4\r\nContent-Length: 5\r\n', 'abcde'],
    ['chunks twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n'],
    ['a disguised length', 'Content-Length : 4\r\n', 'abcd'],
    ['a bare line feed', 'X: y\nContent-Length: 4\r\n', 'abcd'],
    ['a folded header', 'X: y\r\n Content-Length: 4\r\n', 'abcd'],
    ['two hosts', `Host: evil.example\r\nConnection: close\r\n`, ''],
    ['no host', 'Connection: close\r\n', ''],
  ])('%s', async (what, extra, body) => {
    await using stage = await openNodeStage();
    const request = what === 'no host' ? head(extra).replace(/Host: .*\r\n/, '') : head(extra);
    expect(await stage.raw(request + body)).toMatch(/^HTTP\/1\.1 4/);
    expect(stage.seen).toEqual([]);
  });

  test.each(['%2e%2e/x', '..', 'a%2fb', `${ID}/../x`, `${ID}/%2e%2e/x`, `${ID}/a%2f..%2fb`, `${ID}/a//b`, `${ID}%00`])(
    'the path %s',
    async (below) => {
      await using stage = await openNodeStage();
      const answer = await stage.raw(
        `GET /opencode-mcp/v1/i/${below} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: close\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 404/);
      expect(stage.seen).toEqual([]);
    },
  );

  test.each(['TRACE', 'CONNECT'])('%s', async (method) => {
    await using stage = await openNodeStage();
    const answer = await stage.raw(
      `${method} ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: close\r\n\r\n`,
    );
    expect(answer).not.toContain('200');
    expect(stage.seen).toEqual([]);
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
    expect((await stage.ask('/file/content?path=/etc/passwd', { from: READER })).status).toBe(403);
    expect((await stage.ask('/session', { from: READER, method: 'POST', body: '{}' })).status).toBe(403);
    expect((await stage.list({ from: READER })).instances.length).toBe(1);
    expect(stage.seen.length).toBe(1);
  });

  test('sees sessions of the instance’s own directory only', async () => {
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
    expect((await stage.ask('/session/ses_own/message', { from: READER })).status).toBe(200);
    expect((await stage.ask('/session/ses_own', { from: READER })).status).toBe(200);
    expect((await stage.ask('/session/ses_foreign/message', { from: READER })).status).toBe(404);
    expect((await stage.ask('/session/ses_none', { from: READER })).status).toBe(404);
    expect(stage.seen.filter(({ url }) => /ses_(foreign|none)/.test(url))).toEqual([]);
  });
});

describe('limits', () => {
  const QUICK = { headersMs: 300, requestMs: 600, checkMs: 50 };

  test('refuse headers above 16 KiB', async () => {
    await using stage = await openNodeStage();
    const answer = await stage.raw(`GET ${LIST_PATH} HTTP/1.1\r\nHost: ${SELF}\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431/);
  });

  /** So that only the limit of heads can end it. */
  const QUICK_HEADS = { ...QUICK, requestMs: 600_000 };

  test('cut a head that does not end', async () => {
    await using stage = await openNodeStage({ limits: QUICK_HEADS });
    expect(await stage.raw(`GET ${LIST_PATH} HTTP/1.1\r\nHost: ${SELF}\r\n`)).toMatch(/^HTTP\/1\.1 408/);
  });

  test('cut a connection without a request', async () => {
    await using stage = await openNodeStage({ limits: QUICK_HEADS });
    expect(await stage.raw('')).toMatch(/^(HTTP\/1\.1 408|$)/);
  });

  test('cut a body that does not end', async () => {
    await using stage = await openNodeStage({ limits: QUICK });
    await stage.raw(`POST ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\nContent-Length: 10\r\n\r\nabc`);
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test('do not cut a long event stream', async () => {
    let say: (text: string) => void = () => {};
    await using stage = await openNodeStage({
      limits: QUICK,
      handler: (_, response) => {
        response.writeHead(200).flushHeaders();
        say = (text) => void response.write(text);
      },
    });
    const stream = await stage.connect();
    let got = '';
    stream.on('data', (chunk: Buffer) => (got += chunk.toString()));
    stream.write(`GET ${stage.path('/event')} HTTP/1.1\r\nHost: ${SELF}\r\n\r\n`);
    await until('the head', () => got.includes('200 OK'));
    // A slow one that began later is cut; so the limits have run out for the stream as well.
    await stage.raw(`POST ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\nContent-Length: 10\r\n\r\nabc`);
    say('still here');
    await until('the rest', () => got.includes('still here'));
    stream.destroy();
  });

  test('close idle connections to make room for a new one', async () => {
    await using stage = await openNodeStage({ maxConnections: 20 });
    const idle: Socket[] = [];
    for (let count = 0; count < 1000; count += 1) idle.push(await stage.connect());
    await until('the oldest to be let go', () => stage.service.connections <= 20);
    expect((await stage.list()).instances.length).toBe(1);
    expect(stage.service.connections).toBeLessThanOrEqual(20);
    for (const socket of idle) socket.destroy();
  });

  test('never close a busy connection for another', async () => {
    let answer: () => void = () => {};
    await using stage = await openNodeStage({
      maxConnections: 2,
      handler: (_, response) => void (answer = () => void response.end('done')),
    });
    const working = stage.ask('/session');
    const more = stage.ask('/session/status-of-all');
    await until('both to be at work', () => stage.seen.length === 2);
    const late = await stage.connect();
    await within(once(late, 'close'), 'the third to be refused');
    answer();
    expect((await Promise.race([working, more])).text).toBe('done');
    stage.service.close().catch(() => {});
    await Promise.allSettled([working, more]);
  });
});

test('userspace networking: refuses a loopback caller that is not tailscaled, whatever whois answers', async () => {
  let stranger = true;
  await using stage = await openNodeStage({
    tun: false,
    loopbackPeer: {
      tailscaledUid: () => Promise.resolve(stranger ? 65_000 : process.getuid?.()),
      readSockets: readSocketTable,
      holders: () => Promise.resolve([]),
    },
  });
  const laptop = stage.api.callers.get(OWN_LAPTOP);
  if (laptop === undefined) throw new Error('Expected the laptop to be known');
  stage.api.callers.set('127.0.0.1', laptop);
  const asked = { from: '127.0.0.1', headers: { host: 'self' } };
  const refused = await stage.call(LIST_PATH, asked);
  expect(refused.status).toBe(403);
  expect(refused.text).toContain('did not come through tailscaled: the other end of the connection belongs to user id');
  expect(stage.api.asked).toEqual([]);
  stranger = false;
  expect((await stage.call(LIST_PATH, asked)).status).toBe(200);
});

test('userspace networking: reads the kernel’s table again if it lacks the connection', async () => {
  let reads = 0;
  await using stage = await openNodeStage({
    tun: false,
    loopbackPeer: {
      tailscaledUid: () => Promise.resolve(process.getuid?.()),
      readSockets: async () => ((reads += 1) > 2 ? readSocketTable() : []),
      holders: () => Promise.resolve([]),
    },
  });
  const laptop = stage.api.callers.get(OWN_LAPTOP);
  if (laptop === undefined) throw new Error('Expected the laptop to be known');
  stage.api.callers.set('127.0.0.1', laptop);
  expect((await stage.call(LIST_PATH, { from: '127.0.0.1', headers: { host: 'self' } })).status).toBe(200);
  expect(reads).toBe(3);
});
