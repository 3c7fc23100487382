import { once } from 'node:events';
import { request as requestHttp, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';

import { describe, expect, onTestFinished, test } from 'vitest';

import { needRoot } from '../discovery/as-root.ts';
import { startStranger } from '../rig/stranger.ts';
import { until, within } from '../rig/wait.ts';
import { DIRECTORY, openNodeStage, OWN_LAPTOP, PASSWORD, READER, SELF, STRANGER, type NodeStage } from './stage.ts';

/** A response whose body the test reads. */
async function open(stage: NodeStage, path: string): Promise<IncomingMessage> {
  const request = requestHttp({
    host: SELF,
    port: stage.port,
    path: stage.path(path),
    localAddress: OWN_LAPTOP,
    agent: false,
  });
  request.on('error', () => {});
  request.end();
  onTestFinished(() => void request.destroy());
  const [response] = (await within(once(request, 'response'), `the head of ${path}`)) as [IncomingMessage];
  response.on('error', () => {});
  return response;
}

describe('headers', () => {
  test('the caller’s Authorization and identity headers are replaced by the instance’s password', async () => {
    await using stage = await openNodeStage();
    await stage.ask('/session', {
      headers: {
        authorization: 'Basic Zm9yZ2VkOmZvcmdlZA==',
        cookie: 'a=b',
        'x-forwarded-for': '100.64.0.1',
        'x-forwarded-user': 'root',
        'x-real-ip': '100.64.0.1',
        forwarded: 'for=100.64.0.1',
        'tailscale-user-login': 'ada@example.com',
        'tailscale-app-capabilities': '{}',
        'x-webauth-user': 'ada',
        te: 'trailers',
        connection: 'close, x-mine',
        'x-mine': '1',
        'x-kept': 'kept',
      },
    });
    const [seen] = stage.seen;
    expect(seen?.headers).toEqual({
      authorization: `Basic ${Buffer.from(`opencode:${PASSWORD}`).toString('base64')}`,
      connection: expect.stringMatching(/close|keep-alive/),
      host: `127.0.0.1:${stage.instancePort}`,
      'x-kept': 'kept',
    });
  });

  test('the caller’s Authorization is dropped even if the instance has no password', async () => {
    await using stage = await openNodeStage({ open: true });
    await stage.ask('/session', { headers: { authorization: 'Basic Zm9yZ2VkOmZvcmdlZA==' } });
    expect(stage.seen).toMatchObject([{ url: '/session' }]);
    expect(stage.seen[0]?.headers).not.toHaveProperty('authorization');
  });

  test('forged claims admit nobody', async () => {
    await using stage = await openNodeStage();
    const headers = {
      'x-forwarded-for': OWN_LAPTOP,
      'x-real-ip': OWN_LAPTOP,
      forwarded: `for=${OWN_LAPTOP}`,
      'tailscale-user-login': 'ada@example.com',
      authorization: `Basic ${Buffer.from(`opencode:${PASSWORD}`).toString('base64')}`,
    };
    expect((await stage.ask('/session', { from: STRANGER, headers })).status).toBe(403);
    expect((await stage.ask('/session', { from: READER, method: 'POST', headers })).status).toBe(403);
    expect(stage.seen).toEqual([]);
  });

  test('CORS and hop-by-hop headers of an answer are dropped', async () => {
    await using stage = await openNodeStage({
      handler: (_, response) =>
        void response
          .writeHead(201, 'Made', {
            'access-control-allow-origin': '*',
            'set-cookie': 'a=b',
            'x-next-cursor': 'c1',
            vary: 'a, b',
            connection: 'close, x-hop',
            'x-hop': '1',
          })
          .end('made'),
    });
    const { status, headers, text } = await stage.ask('/session', { method: 'POST', body: '{}' });
    expect([status, text]).toEqual([201, 'made']);
    expect(headers).toMatchObject({ 'x-next-cursor': 'c1', vary: 'a, b' });
    expect(Object.keys(headers)).not.toEqual(expect.arrayContaining(['access-control-allow-origin']));
    expect(headers).not.toHaveProperty('set-cookie');
    expect(headers).not.toHaveProperty('x-hop');
  });

  test('a 401 of the instance becomes a 502, not a challenge to the caller', async () => {
    await using stage = await openNodeStage({
      handler: (_, response) => void response.writeHead(401, { 'www-authenticate': 'Basic' }).end(),
    });
    const { status, headers, text } = await stage.ask('/session');
    expect([status, headers['www-authenticate']]).toEqual([502, undefined]);
    expect(text).toContain('refused the password');
  });
});

describe('bodies', () => {
  test.each(['POST', 'PUT', 'PATCH', 'DELETE'])('%s goes through whole', async (method) => {
    await using stage = await openNodeStage();
    const body = '{"text":"grüß"}';
    await stage.ask('/session/ses_1/message?x=%2F', { method, body, headers: { 'content-type': 'application/json' } });
    expect(stage.seen).toMatchObject([
      { method, url: '/session/ses_1/message?x=%2F', body, headers: { 'content-type': 'application/json' } },
    ]);
  });

  test.each(['GET', 'DELETE', 'POST'])(
    'a chunked body of %s stays a body, and is never a second request',
    async (method) => {
      await using stage = await openNodeStage();
      const smuggled = 'POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
      const chunk = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
      const answer = await stage.raw(
        `${method} ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
      );
      expect(answer).toContain('200 OK');
      expect(stage.seen.map(({ method, url, body }) => [method, url, body])).toEqual([[method, '/session', smuggled]]);
    },
  );
});

describe('streams', () => {
  test('an answer arrives as it is sent, its head first', async () => {
    let say: (text: string) => void = () => {};
    await using stage = await openNodeStage({
      handler: (_, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
        say = (text) => void response.write(text);
      },
    });
    const response = await open(stage, '/event');
    expect(response.headers['content-type']).toBe('text/event-stream');
    for (const text of ['data: 1\n\n', 'data: 2\n\n']) {
      say(text);
      const [chunk] = (await within(once(response, 'data'), 'an event')) as [Buffer];
      expect(chunk.toString()).toBe(text);
    }
  });

  test('an instance is read no faster than the caller reads', async () => {
    const block = Buffer.alloc(64 * 1024);
    let instance: ServerResponse | undefined;
    await using stage = await openNodeStage({
      handler: (_, response) => {
        instance = response;
        response.writeHead(200);
        const fill = (): void => {
          while (response.write(block));
        };
        response.on('drain', fill);
        fill();
      },
    });
    const response = await open(stage, '/file/content');
    response.pause();
    // What the kernel's buffers on both connections hold, and no more: then nothing moves although the instance wants to go on.
    let before = -1;
    let still = 0;
    await until('the flow to stop', () => {
      const now = instance?.socket?.bytesWritten ?? 0;
      still = now === before ? still + 1 : 0;
      before = now;
      return still > 8;
    });
    expect(instance?.writableNeedDrain).toBe(true);
    let drained = false;
    instance?.once('drain', () => (drained = true));
    response.resume();
    await until('the flow to go on', () => drained);
  });

  test('a caller that disconnects ends the request to the instance', async () => {
    let gone = false;
    await using stage = await openNodeStage({
      handler: (request, response) => {
        request.socket.once('close', () => (gone = true));
        response.writeHead(200).flushHeaders();
      },
    });
    (await open(stage, '/event')).destroy();
    await until('the instance to be let go', () => gone);
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test('an answer that breaks off breaks off for the caller', async () => {
    await using stage = await openNodeStage({
      handler: (request, response) => {
        response.writeHead(200).write('half');
        setImmediate(() => request.socket.destroy());
      },
    });
    const response = await open(stage, '/event');
    response.resume();
    await until('the end', () => response.closed);
    expect(response.complete).toBe(false);
  });

  test('a gone instance gives 502, even to a request with a body', async () => {
    await using stage = await openNodeStage({
      ports: { ours: (claims) => Promise.resolve(claims) },
      handler: (request) => request.socket.destroy(),
    });
    const { status, text } = await stage.ask('/session', { method: 'POST', body: 'x'.repeat(100_000) });
    expect([status, text]).toEqual([502, expect.stringContaining('does not answer')]);
  });
});

describe('WebSockets', () => {
  const handshake = (path: string, extra = ''): string =>
    `GET ${path} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${extra}\r\n`;
  const echo = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    socket.on('error', () => {});
    const key = request.headers['sec-websocket-key'];
    const auth = request.headers.authorization === undefined ? 'none' : 'own';
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Key: ${key}\r\nX-Auth: ${auth}\r\n\r\nhello`,
    );
    socket.write(head);
    socket.pipe(socket);
  };

  test('pass both ways for the role drive, with the password', async () => {
    await using stage = await openNodeStage({ onUpgrade: echo });
    const socket = await stage.connect();
    let got = '';
    socket.on('data', (chunk: Buffer) => (got += chunk.toString('latin1')));
    // With its first bytes in the same packet as the handshake.
    socket.write(`${handshake(stage.path('/pty/pty_1/connect?cursor=0'))}first`);
    await until('the first bytes to come back', () => got.endsWith('hellofirst'));
    expect(got).toMatch(/^HTTP\/1\.1 101 .*x-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-auth: own/is);
    socket.write('second');
    await until('the second bytes to come back', () => got.endsWith('second'));
    socket.destroy();
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test.each([
    ['read has none, not even on its own routes', READER, '/event', ''],
    ['a stranger has none', STRANGER, '/pty/pty_1/connect', ''],
    ['a foreign page has none', OWN_LAPTOP, '/pty/pty_1/connect', 'Origin: https://evil.example\r\n'],
  ])('%s', async (_, from, path, extra) => {
    await using stage = await openNodeStage({ onUpgrade: () => expect.unreachable() });
    expect(await stage.raw(handshake(stage.path(path), extra), from)).toContain('HTTP/1.1 403');
  });

  test.each([
    ['the service', STRANGER],
    ['the instance', OWN_LAPTOP],
  ])('a handshake that %s refused holds no connection, although the caller leaves it open', async (_, from) => {
    await using stage = await openNodeStage();
    const socket = connect({ host: SELF, port: stage.port, localAddress: from, allowHalfOpen: true });
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).resume();
    socket.write(handshake(stage.path('/pty/pty_1/connect')));
    await once(socket, 'end');
    await until('the connection to be let go', () => stage.service.connections === 0);
  });

  test('only WebSocket upgrades pass, and an instance may refuse one', async () => {
    await using stage = await openNodeStage();
    const h2c = handshake(stage.path('/session')).replace('websocket', 'h2c');
    expect(await stage.raw(h2c)).toContain('HTTP/1.1 400');
    expect(stage.seen).toEqual([]);
    expect(await stage.raw(handshake(stage.path('/session')))).toContain('HTTP/1.1 200 Refused by the instance');
  });
});

test('neither a request nor an upgrade reaches another user who holds the port by now', async (context) => {
  needRoot(context);
  // As if the port changed hands right after it was seen to be ours.
  await using stage = await openNodeStage({ ports: { ours: (claims) => Promise.resolve(claims) } });
  await stage.endInstance();
  await using stranger = await startStranger({ port: stage.instancePort, directory: DIRECTORY });
  const { status, headers, text } = await stage.ask('/session', { method: 'POST', body: 'secret words' });
  expect(status).toBe(502);
  expect(headers['proxy-status']).toContain('destination_unavailable');
  expect(text).toContain(`no password was sent: user id 65534 holds port ${stage.instancePort} of 127.0.0.1`);
  const handshake = `GET ${stage.path('/pty')} HTTP/1.1\r\nHost: ${SELF}:${stage.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  expect(await stage.raw(handshake)).toMatch(/^HTTP\/1\.1 502 /);
  expect(stranger.seen.filter(({ url }) => url !== '/global/health' && url !== '/path')).toEqual([]);
  expect(stranger.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
});
