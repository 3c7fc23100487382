import { createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';

import { openWebForwarder } from '../../src/attach/web-forwarder.ts';
import { ask, askUpgrade, type Asked, basic, OWN, startInstance, endpointBy } from './instances.ts';

/** Opens a forwarder to a new instance; `enter` requests its address as a browser does. */
async function openForwarder(endpoint?: Parameters<typeof startInstance>[1], isOwn = true) {
  const instance = await startInstance('the instance', endpoint);
  const current = endpointBy([instance]);
  const forwarder = await openWebForwarder({
    endpoint: () => current.now(),
    start: '/abc/session/ses_1',
    isOwnPeer: () => Promise.resolve(isOwn),
  });
  onTestFinished(() => forwarder.close());
  const { host, port: portText, pathname: path } = new URL(forwarder.url);
  const port = Number(portText);
  const enter = (headers: Readonly<Record<string, string>> = {}): Promise<Asked> =>
    ask({ port, path, headers: { host, ...headers } });
  return { instance, host, port, path, enter };
}

function cookieOf({ headers }: Asked): string {
  return headers['set-cookie']?.[0]?.split(';', 1)[0] ?? '';
}

test('the address admits one browser, once, and only with a cookie', async () => {
  const { enter, port, host, instance } = await openForwarder();
  expect(host).toMatch(/^[0-9a-f]{20}\.localhost:\d+$/);
  const first = await enter({ 'sec-fetch-site': 'none' });
  expect(first).toMatchObject({
    status: 303,
    headers: { location: '/abc/session/ses_1', 'cache-control': 'no-store' },
  });
  expect(first.headers['set-cookie']).toEqual([
    expect.stringMatching(/^opencode-mcp=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/),
  ]);
  const cookie = `theme=dark; ${cookieOf(first)}`;
  const headers = {
    host,
    cookie,
    origin: `http://${host}`,
    'sec-fetch-site': 'same-origin',
    'user-agent': 'Mozilla/5.0',
  };
  expect(await ask({ port, headers })).toMatchObject({ status: 200, text: 'the instance' });
  expect(await askUpgrade(port, headers)).toMatch(/^HTTP\/1.1 101 /);
  for (const { headers: forwarded } of instance.seen) {
    expect(forwarded['authorization']).toBe(basic(OWN));
    // A node service refuses browsers.
    for (const name of ['cookie', 'origin', 'sec-fetch-site', 'user-agent']) expect(forwarded).not.toHaveProperty(name);
  }
  expect(await enter()).toMatchObject({ status: 403, text: expect.stringContaining('already used') as string });
  expect(await ask({ port, headers })).toMatchObject({ status: 200 });
});

test('a link or an image in another page does not use up the address', async () => {
  const { enter } = await openForwarder();
  const text = expect.stringContaining('address bar') as string;
  expect(await enter({ 'sec-fetch-site': 'cross-site' })).toMatchObject({ status: 403, text });
  expect(await enter({ 'sec-fetch-site': 'none' })).toMatchObject({ status: 303 });
});

test('the address does not admit another user', async () => {
  const { enter } = await openForwarder(undefined, false);
  const answer = await enter();
  expect(answer).toMatchObject({ status: 403, text: expect.stringContaining('cannot verify') as string });
  expect(cookieOf(answer)).toBe('');
});

test.each([
  ['without a cookie', () => ({ cookie: '' }), 403],
  ['with another cookie', (cookie: string) => ({ cookie: `${cookie.slice(0, -1)}!` }), 403],
  ['with only the password of the instance', () => ({ cookie: '', authorization: basic(OWN) }), 403],
  [
    'for a name that another DNS server points here',
    (_: string, port: number) => ({ host: `evil.example:${port}` }),
    421,
  ],
  ['for the bare address', (_: string, port: number) => ({ host: `127.0.0.1:${port}` }), 421],
  ['from a page of another server of this machine', () => ({ origin: 'http://127.0.0.1:4096' }), 403],
  ['from a page of localhost', () => ({ origin: 'http://localhost' }), 403],
  ['from a sandboxed page', () => ({ origin: 'null' }), 403],
  ['for an image in another page', () => ({ 'sec-fetch-site': 'cross-site' }), 403],
  ['from a page of another port', () => ({ 'sec-fetch-site': 'same-site' }), 403],
])('a request %s does not reach the instance', async (_, change, status) => {
  const { enter, port, host, instance } = await openForwarder();
  const cookie = cookieOf(await enter());
  const headers = { host, cookie, ...change(cookie, port) };
  expect(await ask({ port, headers })).toMatchObject({ status });
  expect(await askUpgrade(port, headers)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect(instance.seen).toEqual([]);
});

test.each([
  ['with another token', (path: string) => ({ path: `${path.slice(0, -1)}!` })],
  ['with another method', () => ({ method: 'POST' })],
  ['for a name that another DNS server points here', () => ({ headers: { host: 'evil.example' } })],
])('a request %s is refused, and does not use up the address', async (_, change) => {
  const { path, enter, port, host } = await openForwarder();
  const answer = await ask({ port, path, headers: { host }, ...change(path) });
  expect([403, 421]).toContain(answer.status);
  expect(cookieOf(answer)).toBe('');
  expect(await enter()).toMatchObject({ status: 303 });
});

test('no other server can listen on the address that a browser tries first', async () => {
  const { port, host } = await openForwarder();
  const other = createServer();
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => other.once('error', resolve).listen(port, '::1'));
  expect(error.code).toBe('EADDRINUSE');
  expect(await ask({ port, host: '::1', headers: { host } })).toMatchObject({ status: 403 });
});

test('a page from a node service gets the forwarder’s origin', async () => {
  const policies = ["img-src 'self'", 'sandbox'];
  const { host, port, enter } = await openForwarder({
    route: 'tailnet',
    answerHeaders: { 'content-security-policy': policies },
  });
  const page = await ask({ port, path: '/', headers: { host, cookie: cookieOf(await enter()) } });
  expect(page).toMatchObject({ status: 200, headers: { 'content-security-policy': "img-src 'self'" } });
});
