import { execFile } from 'node:child_process';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { promisify } from 'node:util';

import { describe, expect, onTestFinished, test } from 'vitest';

import { type Connection, exchange, openStream } from '../../src/http/exchange.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { startThreadServer } from '../rig/thread-server.ts';
import { deferred, until } from '../rig/wait.ts';

interface TestServer {
  readonly connection: Connection;
  /** For each request, the number of its connection, from 0. */
  readonly requests: Array<{ readonly line: string; readonly socket: number }>;
  readonly sockets: Socket[];
}

async function startTestServer(
  handle: (request: IncomingMessage, response: ServerResponse, nth: number) => void,
): Promise<TestServer> {
  const requests: Array<{ line: string; socket: number }> = [];
  const sockets: Socket[] = [];
  const { url, close } = await listenHttp((request, response) => {
    if (!sockets.includes(request.socket)) sockets.push(request.socket);
    requests.push({ line: `${request.method} ${request.url}`, socket: sockets.indexOf(request.socket) });
    request.resume();
    request.once('end', () => handle(request, response, requests.length));
  });
  onTestFinished(close);
  return { connection: { endpoint: { url, route: 'loopback' } }, requests, sockets };
}

function answer(response: ServerResponse, text: string): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(text);
}

const limits = { timeoutMs: 60_000, maxBytes: 1000 };

describe('an exchange', () => {
  test('reuses one connection for consecutive requests', async () => {
    const { connection, requests } = await startTestServer((_, response) => answer(response, '1'));
    for (const path of ['/a', '/b', '/c'])
      expect(await exchange(connection, path, {}, limits)).toMatchObject({ text: '1' });
    expect(requests.map(({ socket }) => socket)).toEqual([0, 0, 0]);
  });

  /** Runs a program in its own process, since the limit on open files applies to a process. */
  const runLimited = async (files: number, program: string): Promise<string> => {
    const imported = `import { exchange } from '${new URL('../../src/http/exchange.ts', import.meta.url).href}';\n${program}`;
    const script = `ulimit -n ${files}; exec "$0" --import tsx --input-type=module -e "$1"`;
    return (await promisify(execFile)('/bin/sh', ['-c', script, process.execPath, imported])).stdout;
  };

  test('keeps as many idle connections as the file limit allows, the most recently used ones', async () => {
    const servers = await Promise.all(
      Array.from({ length: 100 }, () => startTestServer((_, response) => answer(response, '1'))),
    );
    const urls = servers.map(({ connection }) => connection.endpoint.url);
    // Counts its sockets before its exit closes them.
    const program = `
      import { readdirSync, readlinkSync } from 'node:fs';
      const ask = (url) => exchange({ endpoint: { url, route: 'loopback' } }, '/', {}, { timeoutMs: 10_000, maxBytes: 1000 });
      const isSocket = (file) => { try { return readlinkSync('/proc/self/fd/' + file).startsWith('socket:'); } catch { return false; } };
      const sockets = () => readdirSync('/proc/self/fd').filter(isSocket).length;
      const before = sockets();
      for (const url of ${JSON.stringify(urls)}) await ask(url);
      await ask(${JSON.stringify(urls.at(-1))});
      process.stdout.write(String(sockets() - before));
      process.exit();
    `;
    const openAtLimit256 = Number(await runLimited(256, program));
    // Node's own sockets may come and go meanwhile.
    expect(openAtLimit256).toBeGreaterThan(60);
    expect(openAtLimit256).toBeLessThanOrEqual(64);
    expect(servers.at(-1)?.requests.map(({ socket }) => socket)).toEqual([0, 0]);
    expect(Number(await runLimited(4096, program))).toBeGreaterThan(96);
  });

  test('waits for a free file descriptor, and fails with the cause if there is none', async () => {
    const { connection } = await startTestServer((_, response) => answer(response, '1'));
    // Opens files up to the limit, then sends a request.
    const program = `
      import { closeSync, openSync } from 'node:fs';
      const files = [];
      const ask = (timeoutMs) => exchange(${JSON.stringify(connection)}, '/', {}, { timeoutMs, maxBytes: 1000 });
      const fill = () => { try { for (;;) files.push(openSync('/dev/null')); } catch {} };
      fill();
      const fillTimer = setInterval(fill, 10);
      const failure = await ask(1_000).then(({ text }) => text, ({ kind, message }) => kind + ' ' + message);
      const pendingRequest = ask(20_000);
      setTimeout(() => { clearInterval(fillTimer); files.splice(0).forEach((file) => closeSync(file)); }, 300);
      const { text } = await pendingRequest;
      process.stdout.write(JSON.stringify([failure, text]));
    `;
    expect(JSON.parse(await runLimited(128, program))).toEqual([
      expect.stringMatching(/^unreachable .*too many open files.*ulimit -n/),
      '1',
    ]);
  });

  test('is sent again on a new connection if the pooled one was closed meanwhile', async () => {
    const bothArrived = deferred<void>();
    const { connection, requests, sockets } = await startTestServer((request, response, nth) => {
      if (nth === 2) bothArrived.resolve();
      if (nth > 2 && request.socket !== sockets[2]) request.socket.destroy();
      else void bothArrived.promise.then(() => answer(response, String(nth)));
    });
    await Promise.all([exchange(connection, '/', {}, limits), exchange(connection, '/', {}, limits)]);
    expect(await exchange(connection, '/', {}, limits)).toMatchObject({ text: '4' });
    expect(requests.map(({ socket }) => socket)).toEqual([0, 1, expect.any(Number), 2]);
  });

  test('is sent again only once', async () => {
    const { connection, requests } = await startTestServer((request, response, nth) => {
      if (nth > 1) request.socket.destroy();
      else answer(response, String(nth));
    });
    await exchange(connection, '/', {}, limits);
    await expect(exchange(connection, '/', {}, limits)).rejects.toMatchObject({ kind: 'broken' });
    expect(requests).toHaveLength(3);
  });

  test('with side effects is never sent again', async () => {
    const { connection, requests } = await startTestServer((request, response, nth) => {
      if (nth === 2) request.socket.destroy();
      else answer(response, String(nth));
    });
    await exchange(connection, '/', {}, limits);
    const post = exchange(connection, '/prompt', { method: 'POST', body: '{}' }, limits);
    await expect(post).rejects.toMatchObject({ kind: 'broken' });
    expect(requests.map(({ line }) => line)).toEqual(['GET /', 'POST /prompt']);
  });

  test('keeps a character that arrives in two pieces', async () => {
    const text = JSON.stringify('früh – 🦊');
    const { connection } = await startTestServer((_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      for (const byte of Buffer.from(text)) response.write(Buffer.of(byte));
      response.end();
    });
    expect(await exchange(connection, '/', {}, limits)).toMatchObject({ text });
  });

  test('that truncates strings fails if the body exceeds 64 times `maxBytes`', async () => {
    const { connection } = await startTestServer(({ url }, response) =>
      answer(response, JSON.stringify('x'.repeat(Number(url?.slice(1))))),
    );
    const truncatingLimits = { ...limits, maxStringBytes: 10 };
    expect((await exchange(connection, '/63000', {}, truncatingLimits)).text.length).toBeLessThan(100);
    await expect(exchange(connection, '/65000', {}, truncatingLimits)).rejects.toMatchObject({ kind: 'too-large' });
  });

  test.each([
    ['with a content-length', { 'content-length': '100' }],
    ['with chunked encoding', {}],
  ])('fails as broken when a body %s ends early', async (_, headers: Record<string, string>) => {
    const { connection } = await startTestServer((request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers });
      response.write('{"a":', () => request.socket.destroy());
    });
    await expect(exchange(connection, '/', {}, limits)).rejects.toMatchObject({ kind: 'broken' });
  });

  test.each([
    ['before the answer', () => {}],
    [
      'in the middle of the body',
      (response: ServerResponse) => response.writeHead(200, { 'content-type': 'application/json' }).write('{'),
    ],
  ])(
    'is cancelled by its signal %s, and its connection is closed',
    async (_, begin: (response: ServerResponse) => unknown) => {
      const arrived = deferred<void>();
      const { connection, sockets } = await startTestServer((_request, response) => {
        begin(response);
        arrived.resolve();
      });
      const controller = new AbortController();
      const exchanging = exchange(connection, '/', {}, { ...limits, signal: controller.signal });
      await arrived.promise;
      controller.abort();
      await expect(exchanging).rejects.toMatchObject({ kind: 'cancelled' });
      await until('the connection to be closed', () => sockets[0]?.destroyed);
    },
  );

  test('is not sent if it is already cancelled', async () => {
    const { connection, requests } = await startTestServer((_, response) => answer(response, '1'));
    const exchanging = exchange(connection, '/', {}, { ...limits, signal: AbortSignal.abort() });
    await expect(exchanging).rejects.toMatchObject({ kind: 'cancelled' });
    await exchange(connection, '/later', {}, limits);
    expect(requests.map(({ line }) => line)).toEqual(['GET /later']);
  });

  test('with side effects calls beforeChange once connected, and is not sent if that throws', async () => {
    const { connection, requests } = await startTestServer((_, response) => answer(response, '1'));
    const { port } = new URL(connection.endpoint.url);
    const [dialled, connected] = [deferred<void>(), deferred<void>()];
    const dial = async (): Promise<Socket> => {
      dialled.resolve();
      await connected.promise;
      return connect(Number(port), '127.0.0.1');
    };
    let isOver = false;
    const beforeChange = (): void => {
      if (isOver) throw new Error('over');
    };
    const guarded = { endpoint: { ...connection.endpoint, dial }, beforeChange };
    const post = exchange(guarded, '/prompt', { method: 'POST', body: '{}' }, limits);
    await dialled.promise;
    isOver = true;
    connected.resolve();
    await expect(post).rejects.toThrow('over');
    await exchange(guarded, '/read', {}, limits);
    isOver = false;
    await exchange(guarded, '/prompt', { method: 'POST', body: '{}' }, limits);
    expect(requests.map(({ line }) => line)).toEqual(['GET /read', 'POST /prompt']);
  });

  test('reads an answer that arrived in time while this process was busy', async () => {
    await using server = await startThreadServer({ '/': 1 });
    const connection: Connection = { endpoint: { url: server.url, route: 'loopback' } };
    const timeoutMs = 2000;
    const startMs = performance.now();
    const exchanging = exchange(connection, '/', {}, { ...limits, timeoutMs });
    await server.asked('/');
    server.blockUntilAnswered('/');
    while (performance.now() < startMs + timeoutMs + 100);
    expect(await exchanging).toMatchObject({ text: '1' });
  });
});

describe('a stream', () => {
  test('has its own connection, which its signal closes', async () => {
    const { connection, requests, sockets } = await startTestServer((request, response) => {
      if (request.url === '/events')
        response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\\n\\n');
      else answer(response, '1');
    });
    await exchange(connection, '/', {}, limits);
    const controller = new AbortController();
    const response = await openStream(connection, '/events', { headersTimeoutMs: 60_000, signal: controller.signal });
    await exchange(connection, '/', {}, limits);
    expect(requests.map(({ socket }) => socket)).toEqual([0, 1, 0]);
    expect(response.complete).toBe(false);
    controller.abort();
    await until('the connection to be closed', () => sockets[1]?.destroyed);
  });

  test('continues if its headers arrived in time while this process was busy', async () => {
    await using server = await startThreadServer({ '/events': 1 }, 'text/event-stream');
    const connection: Connection = { endpoint: { url: server.url, route: 'loopback' } };
    const controller = new AbortController();
    const headersTimeoutMs = 2000;
    const startMs = performance.now();
    const opened = openStream(connection, '/events', { headersTimeoutMs, signal: controller.signal });
    await server.asked('/events');
    server.blockUntilAnswered('/events');
    while (performance.now() < startMs + headersTimeoutMs + 100);
    const response = await opened;
    await new Promise((resolve) => setImmediate(resolve));
    expect(response.destroyed).toBe(false);
    controller.abort();
  });

  test('leaves no connection behind if it is refused', async () => {
    const { connection, sockets } = await startTestServer((_, response) =>
      response.writeHead(503, { 'content-type': 'text/plain' }).write('not now'),
    );
    const { signal } = new AbortController();
    const opened = openStream(connection, '/events', { headersTimeoutMs: 60_000, signal });
    await expect(opened).rejects.toMatchObject({ kind: 'status', status: 503 });
    await until('the connection to be closed', () => sockets[0]?.destroyed);
  });
});
