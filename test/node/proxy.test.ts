import { once } from 'node:events';
import { request as requestHttp, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';

import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { needRoot } from '../discovery/as-root.ts';
import { startStranger } from '../rig/stranger.ts';
import { until, within } from '../rig/wait.ts';
import {
  DIRECTORY,
  openNodeStage,
  OWN_LAPTOP,
  PASSWORD,
  READER,
  requestText,
  SELF,
  STRANGER,
  trustingPorts,
  UPGRADE,
  type NodeStage,
  type NodeStageOptions,
} from './stage.ts';

const AUTHORIZATION = `Basic ${Buffer.from(`opencode:${PASSWORD}`).toString('base64')}`;

const answerUrl: NonNullable<NodeStageOptions['handler']> = ({ url }, response) => void response.end(url);

let stage: NodeStage;
let answer = answerUrl;
beforeAll(async () => {
  stage = await openNodeStage({ handler: (...args) => answer(...args) });
});
afterEach(() => {
  answer = answerUrl;
  stage.seen.length = 0;
  stage.instance.server.removeAllListeners('upgrade');
});
afterAll(() => stage[Symbol.asyncDispose]());

/** A response whose body the test reads. */
async function openResponse(path: string): Promise<IncomingMessage> {
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
    expect(stage.seen[0]?.headers).toEqual({
      authorization: AUTHORIZATION,
      connection: expect.stringMatching(/close|keep-alive/),
      host: `127.0.0.1:${stage.instance.port}`,
      'x-kept': 'kept',
    });
  });

  test('the caller’s Authorization is dropped even if the instance has no password', async () => {
    await using openStage = await openNodeStage({ open: true });
    await openStage.ask('/session', { headers: { authorization: 'Basic Zm9yZ2VkOmZvcmdlZA==' } });
    expect(openStage.seen).toMatchObject([{ url: '/session' }]);
    expect(openStage.seen[0]?.headers).not.toHaveProperty('authorization');
  });

  test('CORS and hop-by-hop headers of an answer are dropped', async () => {
    answer = (_, response) =>
      void response
        .writeHead(201, 'Made', {
          'access-control-allow-origin': '*',
          'set-cookie': 'a=b',
          'x-next-cursor': 'c1',
          vary: 'a, b',
          connection: 'close, x-hop',
          'x-hop': '1',
        })
        .end('made');
    const { status, headers, text } = await stage.ask('/session', { method: 'POST', body: '{}' });
    expect([status, text]).toEqual([201, 'made']);
    expect(headers).toMatchObject({ 'x-next-cursor': 'c1', vary: 'a, b' });
    for (const name of ['access-control-allow-origin', 'set-cookie', 'x-hop']) expect(headers).not.toHaveProperty(name);
  });

  test('a 401 of the instance becomes a 502, not a challenge to the caller', async () => {
    answer = (_, response) => void response.writeHead(401, { 'www-authenticate': 'Basic' }).end();
    const { status, headers, text } = await stage.ask('/session');
    expect([status, headers['www-authenticate']]).toEqual([502, undefined]);
    expect(text).toContain('refused the password');
  });
});

describe('bodies', () => {
  test('of every method arrive whole', async () => {
    const request = { url: '/session/ses_1/message?x=%2F', body: '{"text":"grüß"}' };
    const headers = { 'content-type': 'application/json' };
    const methods = ['POST', 'PUT', 'PATCH', 'DELETE'];
    for (const method of methods) await stage.ask(request.url, { method, body: request.body, headers });
    expect(stage.seen).toMatchObject(methods.map((method) => ({ method, ...request, headers })));
  });

  test('in chunks stay bodies, and are never parsed as a second request', async () => {
    const smuggled = 'POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
    const chunk = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
    const methods = ['GET', 'DELETE', 'POST'];
    for (const method of methods) {
      const head = requestText(stage.path('/session'), ['Connection: close', 'Transfer-Encoding: chunked'], method);
      expect(await stage.raw(head + chunk)).toContain('200 OK');
    }
    expect(stage.seen).toMatchObject(methods.map((method) => ({ method, url: '/session', body: smuggled })));
  });
});

describe('streams', () => {
  test('an answer arrives as it is sent, its head first', async () => {
    let write: (text: string) => void = () => {};
    answer = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      write = (text) => void response.write(text);
    };
    const response = await openResponse('/event');
    expect(response.headers['content-type']).toBe('text/event-stream');
    for (const text of ['data: 1\n\n', 'data: 2\n\n']) {
      write(text);
      const [chunk] = (await within(once(response, 'data'), 'an event')) as [Buffer];
      expect(chunk.toString()).toBe(text);
    }
  });

  test('an instance is read no faster than the caller reads', async () => {
    const block = Buffer.alloc(64 * 1024);
    let instance: ServerResponse | undefined;
    answer = (_, response) => {
      instance = response;
      response.writeHead(200);
      const fill = (): void => {
        while (response.write(block));
      };
      response.on('drain', fill);
      fill();
    };
    const response = await openResponse('/file/content');
    response.pause();
    // The flow stops once the kernel's buffers of both connections are full, although the instance has more to send.
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
    await until('the flow to continue', () => drained);
  });

  test('a caller that disconnects ends the request to the instance', async () => {
    let isClosed = false;
    answer = (request, response) => {
      request.socket.once('close', () => (isClosed = true));
      response.writeHead(200).flushHeaders();
    };
    (await openResponse('/event')).destroy();
    await until('the connection to the instance to close', () => isClosed);
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test('an answer that is cut off is also cut off for the caller', async () => {
    answer = (request, response) => {
      response.writeHead(200).write('half');
      setImmediate(() => request.socket.destroy());
    };
    const response = await openResponse('/event');
    response.resume();
    await until('the response to end', () => response.closed);
    expect(response.complete).toBe(false);
  });

  test('an instance that closes the connection leads to 502, also for a request with a body', async () => {
    answer = (request) => request.socket.destroy();
    const { status, text } = await stage.ask('/session', { method: 'POST', body: 'x'.repeat(100_000) });
    expect([status, text]).toEqual([502, expect.stringContaining('does not answer')]);
  });
});

describe('WebSockets', () => {
  const handshake = (path: string, ...headers: readonly string[]): string =>
    requestText(path, [...UPGRADE, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers]);
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
    stage.instance.server.on('upgrade', echo);
    // The first bytes are in the same packet as the handshake.
    const request = `${handshake(stage.path('/pty/pty_1/connect?cursor=0'))}first`;
    const { socket, received, receives } = await stage.open(request);
    await receives('hellofirst');
    expect(received()).toMatch(/^HTTP\/1\.1 101 .*x-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-auth: own/is);
    socket.write('second');
    await receives('hellofirstsecond');
    socket.destroy();
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test.each([
    ['the role read, even on its own routes', READER, '/event', []],
    ['a stranger', STRANGER, '/pty/pty_1/connect', []],
    ['a page of another origin', OWN_LAPTOP, '/pty/pty_1/connect', ['Origin: https://evil.example']],
  ])('are refused to %s', async (_, from, path, headers) => {
    stage.instance.server.on('upgrade', () => expect.unreachable());
    expect(await stage.raw(handshake(stage.path(path), ...headers), from)).toContain('HTTP/1.1 403');
  });

  test.each([
    ['the service', STRANGER],
    ['the instance', OWN_LAPTOP],
  ])('a caller whose handshake %s refused is disconnected, even if it keeps its side open', async (_, from) => {
    const socket = connect({ host: SELF, port: stage.port, localAddress: from, allowHalfOpen: true });
    onTestFinished(() => void socket.destroy());
    socket.on('error', () => {}).resume();
    socket.write(handshake(stage.path('/pty/pty_1/connect')));
    await once(socket, 'end');
    await until('the connection to be gone', () => stage.service.connections === 0);
  });

  test('only WebSocket upgrades pass, and an instance may refuse one', async () => {
    const h2c = handshake(stage.path('/session')).replace('websocket', 'h2c');
    expect(await stage.raw(h2c)).toContain('HTTP/1.1 400');
    expect(stage.seen).toEqual([]);
    expect(await stage.raw(handshake(stage.path('/session')))).toContain('HTTP/1.1 200 Refused by the instance');
  });
});

test('neither a request nor an upgrade reaches a process of another user that has taken the port', async (context) => {
  needRoot(context);
  // As if the other user took the port right after the check.
  await using stage = await openNodeStage({ ports: trustingPorts });
  await stage.instance.close();
  await using stranger = await startStranger({ port: stage.instance.port, directory: DIRECTORY });
  const { status, headers, text } = await stage.ask('/session', { method: 'POST', body: 'secret words' });
  expect(status).toBe(502);
  expect(headers['proxy-status']).toContain('destination_unavailable');
  expect(text).toContain(`no password was sent: user id 65534 holds port ${stage.instance.port} of 127.0.0.1`);
  expect(await stage.raw(requestText(stage.path('/pty'), UPGRADE))).toMatch(/^HTTP\/1\.1 502 /);
  expect(stranger.seen.filter(({ url }) => url !== '/global/health' && url !== '/path')).toEqual([]);
  expect(stranger.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
});
