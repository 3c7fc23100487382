import { createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, expect, test } from 'vitest';

import { openServiceProxy, type ServiceProxyOptions } from '../../../src/connected/service/service-proxy.ts';
import type { ExchangeProxy } from '../../../src/node/proxy/exchange-proxy.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { until } from '../../rig/wait.ts';

const OWN = 'the password of the service';
const RANDOM = 'a password of this start';
const closers: Array<() => unknown> = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

const basic = (password: string): string => `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`;

async function open(service: ServiceProxyOptions['service']): Promise<ExchangeProxy> {
  const proxy = await openServiceProxy({ host: '127.0.0.1', port: 0, password: RANDOM, service });
  closers.push(() => proxy.close());
  return proxy;
}

/** The service that `holderPid` has on this port. */
function at(port: number, holderPid: number): ServiceProxyOptions['service'] {
  const endpoint = { url: `http://127.0.0.1:${port}`, route: 'loopback', holderPid } as const;
  return () => Promise.resolve({ endpoint, credential: { username: 'opencode', password: OWN } });
}

/** Sends the path unchanged; `fetch` would normalize it. */
function ask(
  { port }: ExchangeProxy,
  path: string,
  headers: Readonly<Record<string, string>> = { authorization: basic(RANDOM) },
): Promise<{ readonly status: number; readonly text: string; readonly headers: IncomingMessage['headers'] }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, headers, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => (text += part));
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, text, headers: answer.headers }));
    });
    sent.once('error', reject).end();
  });
}

interface Seen {
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
}

/** A service that records the requests that reach it. */
async function openRecorder(): Promise<{ readonly seen: readonly Seen[]; readonly port: number }> {
  const seen: Seen[] = [];
  const server = createServer(({ url, headers }, response) => {
    seen.push({ url, headers });
    response.setHeader('set-cookie', 'login=1');
    response.end('{}');
  });
  server.on('upgrade', ({ url, headers }, socket) => {
    seen.push({ url, headers });
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n');
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { seen, port: (server.address() as AddressInfo).port };
}

async function openRecorded(holderPid = process.pid) {
  const recorder = await openRecorder();
  const proxy = await open(at(recorder.port, holderPid));
  return { ...recorder, proxy };
}

test("replaces the random password by the service's; turns and events go through", async () => {
  await using fake = await startFakeOpencode2({ password: OWN });
  const { port } = fake;
  const proxy = await open(at(port, fake.pid));
  const info = await ask(proxy, '/api/info');
  expect(JSON.parse(info.text)).toMatchObject({ version: fake.version, pid: fake.pid });
  const events = await fetch(`http://127.0.0.1:${proxy.port}/api/event`, { headers: { authorization: basic(RANDOM) } });
  const reader = events.body?.getReader();
  expect(new TextDecoder().decode((await reader?.read())?.value)).not.toBe('');
  await reader?.cancel();
});

test.each([
  ['none', {}],
  ['another', { authorization: basic('another') }],
  ["the service's own", { authorization: basic(OWN) }],
  ['a token in place of it', {}, '/api/session?auth_token=b3BlbmNvZGU6eA=='],
])('with %s nothing reaches the service', async (_, headers, path = '/api/session') => {
  const { proxy, seen } = await openRecorded();
  const answer = await ask(proxy, path, headers);
  expect(answer.status).toBe(401);
  // As OpenCode 2 answers, so that clients recognize it.
  expect(JSON.parse(answer.text)).toMatchObject({ _tag: 'UnauthorizedError' });
  expect(answer.headers['www-authenticate']).toMatch(/^Basic/);
  expect(seen).toEqual([]);
});

test('passes on neither tokens nor cookies, and leaves the rest of the query unchanged', async () => {
  const { proxy, seen } = await openRecorded();
  const authorization = basic(RANDOM);
  const answer = await ask(proxy, '/api/session?limit=2&auth_token=x&%61uth_token=y&AUTH_TOKEN=z&search=a%20b', {
    authorization,
    cookie: 'login=1',
  });
  expect(answer).toMatchObject({ status: 200 });
  expect(answer.headers['set-cookie']).toBeUndefined();
  expect(seen).toHaveLength(1);
  expect(seen[0]?.url).toBe('/api/session?limit=2&search=a%20b');
  expect(seen[0]?.headers['authorization']).toBe(basic(OWN));
  expect(seen[0]?.headers['cookie']).toBeUndefined();
});

test.each([
  ['/api/pair', 403],
  ['/api/pair/', 403],
  ['/api/%70air', 403],
  ['/API/Pair', 403],
  ['/api/pair?x=1', 403],
  ['/auth/connect/abc', 403],
  ['/auth', 403],
  ['/api//pair', 400],
  ['/api/./pair', 400],
  ['/x/../api/pair', 400],
  ['/api%2Fpair', 400],
])('creates no login: %s', async (path, status) => {
  const { proxy, seen } = await openRecorded();
  expect((await ask(proxy, path)).status).toBe(status);
  expect(seen).toEqual([]);
});

test('sends the password only to the process that the file names', async () => {
  const { proxy, seen } = await openRecorded(process.ppid);
  const answer = await ask(proxy, '/api/session');
  expect(answer.status).toBe(502);
  expect(answer.text).toContain(`process ${process.ppid}`);
  expect(seen).toEqual([]);
});

test('reports that there is no service', async () => {
  for (const service of [() => Promise.resolve(undefined), () => Promise.reject(new Error('no folder'))]) {
    const proxy = await open(service);
    expect(await ask(proxy, '/api/session')).toMatchObject({
      status: 503,
      text: expect.stringContaining('not running'),
    });
  }
});

test('passes a WebSocket with the same checks, until the proxy closes', async () => {
  const { proxy, seen } = await openRecorded();
  const upgrade = (authorization: string, path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const headers = { authorization, connection: 'Upgrade', upgrade: 'websocket' };
      const sent = request({ host: '127.0.0.1', port: proxy.port, path, headers, agent: false });
      sent.once('response', (answer) => {
        answer.resume();
        resolve(String(answer.statusCode));
      });
      sent.once('upgrade', (_, socket) => {
        socket.once('data', (data: Buffer) => {
          proxy.close();
          socket.once('close', () => resolve(String(data)));
        });
        socket.on('error', () => {});
        socket.write('echo');
      });
      sent.once('error', reject).end();
    });
  expect(await upgrade(basic('another'), '/api/pty/1/connect')).toBe('401');
  expect(await upgrade(basic(RANDOM), '/api/pair')).toBe('403');
  expect(seen).toEqual([]);
  expect(await upgrade(basic(RANDOM), '/api/pty/1/connect?auth_token=x')).toBe('echo');
  expect(seen[0]?.url).toBe('/api/pty/1/connect');
  expect(seen[0]?.headers['authorization']).toBe(basic(OWN));
});

test('closing cuts running requests, and nothing listens any more', async () => {
  await using fake = await startFakeOpencode2({ password: OWN });
  const proxy = await open(at(fake.port, fake.pid));
  const { port } = proxy;
  const answer = await fetch(`http://127.0.0.1:${port}/api/event`, { headers: { authorization: basic(RANDOM) } });
  const whole = answer.text().catch(() => 'cut');
  await until('the stream to be open', () => fake.streams === 1);
  proxy.close();
  expect(await whole).toBe('cut');
  await until('the stream to be closed', () => fake.streams === 0);
  await expect(fetch(`http://127.0.0.1:${port}/api/info`)).rejects.toThrow();
});

test('closing cuts a connection with half a request', async () => {
  const { proxy } = await openRecorded();
  const socket = connect(proxy.port, '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => {});
  await new Promise<void>((resolve) => socket.write('GET /api/info HTTP/1.1\r\nhost: x\r\n', () => resolve()));
  proxy.close();
  await closed;
});
