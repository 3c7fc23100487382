import { createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, expect, test } from 'vitest';

import { openServiceProxy, type ServiceProxyOptions } from '../../../src/connected/service/service-proxy.ts';
import type { ExchangeProxy } from '../../../src/node/proxy/exchange-proxy.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { until } from '../../rig/wait.ts';

const SERVICE_PASSWORD = 'the password of the service';
const PROXY_PASSWORD = 'a random password of this proxy';
const closers: Array<() => unknown> = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

const basic = (password: string): string => `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`;

async function openProxy(service: ServiceProxyOptions['service']): Promise<ExchangeProxy> {
  const proxy = await openServiceProxy({ host: '127.0.0.1', port: 0, password: PROXY_PASSWORD, service });
  closers.push(() => proxy.close());
  return proxy;
}

/** Finds a service on `port`, which process `holderPid` holds. */
function serviceAt(port: number, holderPid: number): ServiceProxyOptions['service'] {
  const endpoint = { url: `http://127.0.0.1:${port}`, route: 'loopback', holderPid } as const;
  return () => Promise.resolve({ endpoint, credential: { username: 'opencode', password: SERVICE_PASSWORD } });
}

/** Sends the path unchanged; `fetch` would normalize it. */
function get(
  { port }: ExchangeProxy,
  path: string,
  headers: Readonly<Record<string, string>> = { authorization: basic(PROXY_PASSWORD) },
): Promise<{ readonly status: number; readonly text: string; readonly headers: IncomingMessage['headers'] }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, headers, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => (text += part));
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, text, headers: answer.headers }));
    });
    outgoing.once('error', reject).end();
  });
}

interface RecordedRequest {
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
}

/** A service that records the requests that reach it. */
async function openRecorder(): Promise<{ readonly requests: readonly RecordedRequest[]; readonly port: number }> {
  const requests: RecordedRequest[] = [];
  const server = createServer(({ url, headers }, response) => {
    requests.push({ url, headers });
    response.setHeader('set-cookie', 'login=1');
    response.end('{}');
  });
  server.on('upgrade', ({ url, headers }, socket) => {
    requests.push({ url, headers });
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n');
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { requests, port: (server.address() as AddressInfo).port };
}

async function openProxiedRecorder(holderPid = process.pid) {
  const recorder = await openRecorder();
  const proxy = await openProxy(serviceAt(recorder.port, holderPid));
  return { ...recorder, proxy };
}

test("the proxy replaces its random password with the service's, for requests and event streams", async () => {
  await using fake = await startFakeOpencode2({ password: SERVICE_PASSWORD });
  const { port } = fake;
  const proxy = await openProxy(serviceAt(port, fake.pid));
  const info = await get(proxy, '/api/info');
  expect(JSON.parse(info.text)).toMatchObject({ version: fake.version, pid: fake.pid });
  const events = await fetch(`http://127.0.0.1:${proxy.port}/api/event`, {
    headers: { authorization: basic(PROXY_PASSWORD) },
  });
  const reader = events.body?.getReader();
  expect(new TextDecoder().decode((await reader?.read())?.value)).not.toBe('');
  await reader?.cancel();
});

test.each([
  ['no password', {}],
  ['another password', { authorization: basic('another') }],
  ["the service's own password", { authorization: basic(SERVICE_PASSWORD) }],
  ['an auth_token instead of a password', {}, '/api/session?auth_token=b3BlbmNvZGU6eA=='],
])('the proxy forwards no request with %s', async (_, headers, path = '/api/session') => {
  const { proxy, requests } = await openProxiedRecorder();
  const answer = await get(proxy, path, headers);
  expect(answer.status).toBe(401);
  // Clients recognize the error that OpenCode 2 itself sends.
  expect(JSON.parse(answer.text)).toMatchObject({ _tag: 'UnauthorizedError' });
  expect(answer.headers['www-authenticate']).toMatch(/^Basic/);
  expect(requests).toEqual([]);
});

test('the proxy forwards neither tokens nor cookies, and does not change the rest of the query', async () => {
  const { proxy, requests } = await openProxiedRecorder();
  const authorization = basic(PROXY_PASSWORD);
  const answer = await get(proxy, '/api/session?limit=2&auth_token=x&%61uth_token=y&AUTH_TOKEN=z&search=a%20b', {
    authorization,
    cookie: 'login=1',
  });
  expect(answer).toMatchObject({ status: 200 });
  expect(answer.headers['set-cookie']).toBeUndefined();
  expect(requests).toHaveLength(1);
  expect(requests[0]?.url).toBe('/api/session?limit=2&search=a%20b');
  expect(requests[0]?.headers['authorization']).toBe(basic(SERVICE_PASSWORD));
  expect(requests[0]?.headers['cookie']).toBeUndefined();
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
])('the proxy refuses %s, which could create a login', async (path, status) => {
  const { proxy, requests } = await openProxiedRecorder();
  expect((await get(proxy, path)).status).toBe(status);
  expect(requests).toEqual([]);
});

test('the proxy sends the password only to the process that the service file names', async () => {
  const { proxy, requests } = await openProxiedRecorder(process.ppid);
  const answer = await get(proxy, '/api/session');
  expect(answer.status).toBe(502);
  expect(answer.text).toContain(`process ${process.ppid}`);
  expect(requests).toEqual([]);
});

test('the proxy answers 503 if no service is running', async () => {
  for (const service of [() => Promise.resolve(undefined), () => Promise.reject(new Error('no folder'))]) {
    const proxy = await openProxy(service);
    expect(await get(proxy, '/api/session')).toMatchObject({
      status: 503,
      text: expect.stringContaining('not running'),
    });
  }
});

test('the proxy checks WebSocket upgrades too, and closes the sockets when it closes', async () => {
  const { proxy, requests } = await openProxiedRecorder();
  const upgrade = (authorization: string, path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const headers = { authorization, connection: 'Upgrade', upgrade: 'websocket' };
      const outgoing = request({ host: '127.0.0.1', port: proxy.port, path, headers, agent: false });
      outgoing.once('response', (answer) => {
        answer.resume();
        resolve(String(answer.statusCode));
      });
      outgoing.once('upgrade', (_, socket) => {
        socket.once('data', (data: Buffer) => {
          proxy.close();
          socket.once('close', () => resolve(String(data)));
        });
        socket.on('error', () => {});
        socket.write('echo');
      });
      outgoing.once('error', reject).end();
    });
  expect(await upgrade(basic('another'), '/api/pty/1/connect')).toBe('401');
  expect(await upgrade(basic(PROXY_PASSWORD), '/api/pair')).toBe('403');
  expect(requests).toEqual([]);
  expect(await upgrade(basic(PROXY_PASSWORD), '/api/pty/1/connect?auth_token=x')).toBe('echo');
  expect(requests[0]?.url).toBe('/api/pty/1/connect');
  expect(requests[0]?.headers['authorization']).toBe(basic(SERVICE_PASSWORD));
});

test('closing the proxy cuts running requests and frees the port', async () => {
  await using fake = await startFakeOpencode2({ password: SERVICE_PASSWORD });
  const proxy = await openProxy(serviceAt(fake.port, fake.pid));
  const { port } = proxy;
  const answer = await fetch(`http://127.0.0.1:${port}/api/event`, {
    headers: { authorization: basic(PROXY_PASSWORD) },
  });
  const body = answer.text().catch(() => 'cut');
  await until('the stream to be open', () => fake.streams === 1);
  proxy.close();
  expect(await body).toBe('cut');
  await until('the stream to be closed', () => fake.streams === 0);
  await expect(fetch(`http://127.0.0.1:${port}/api/info`)).rejects.toThrow();
});

test('closing the proxy cuts a connection with an incomplete request', async () => {
  const { proxy } = await openProxiedRecorder();
  const socket = connect(proxy.port, '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => {});
  await new Promise<void>((resolve) => socket.write('GET /api/info HTTP/1.1\r\nhost: x\r\n', () => resolve()));
  proxy.close();
  await closed;
});
