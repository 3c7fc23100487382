import { request } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';

import { openForwarder } from '../../src/attach/forwarder.ts';
import { SILENCE_MS, type CurrentEndpoint } from '../../src/attach/current-endpoint.ts';
import type { ExchangeProxy } from '../../src/node/proxy/exchange-proxy.ts';
import { needRoot } from '../discovery/as-root.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { startStranger } from '../rig/stranger.ts';
import { until } from '../rig/wait.ts';
import { ask, askUpgrade, basic, OWN, startInstance, endpointBy } from './instances.ts';

const RANDOM = 'a password of this run';
const authorization = basic(RANDOM);

async function open(current: CurrentEndpoint): Promise<ExchangeProxy> {
  const forwarder = await openForwarder(() => current.now(), RANDOM);
  onTestFinished(() => forwarder.close());
  return forwarder;
}

describe('access', () => {
  test("the instance's password replaces the random one, and each stays on its side", async () => {
    const instance = await startInstance('it');
    const { port } = await open(endpointBy([instance]));
    const answer = await ask({
      port,
      path: '/session?limit=2&auth_token=x',
      headers: { authorization, cookie: 'a=b' },
    });
    expect(answer).toMatchObject({ status: 200, text: 'it' });
    expect(JSON.stringify(answer.headers)).not.toMatch(/theirs|Basic/);
    expect(instance.seen).toMatchObject([{ url: '/session?limit=2', headers: { authorization: basic(OWN) } }]);
    expect(JSON.stringify(instance.seen)).not.toContain(authorization);
    expect(instance.seen[0]?.headers['cookie']).toBeUndefined();
  });

  test.each([
    ['no password', {}, 401],
    ['another password', { authorization: basic('another') }, 401],
    ['the password of the instance', { authorization: basic(OWN) }, 401],
    ['a name that was pointed here', { authorization, host: 'evil.example' }, 421],
    ['the port of another server', { authorization, host: '127.0.0.1:1' }, 421],
    ['a web page', { authorization, origin: 'http://evil.example' }, 403],
    ['a web page at this very address', { authorization, origin: 'http://127.0.0.1' }, 403],
    ['an image in a web page', { authorization, 'sec-fetch-site': 'cross-site' }, 403],
  ])('with %s nothing reaches the instance', async (_, headers, status) => {
    const instance = await startInstance('it');
    const { port } = await open(endpointBy([instance]));
    expect(await ask({ port, headers })).toMatchObject({ status });
    expect(await askUpgrade({ port, headers })).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(instance.seen).toEqual([]);
    expect(await askUpgrade({ port, headers: { authorization } })).toMatch(/^HTTP\/1.1 101 /);
  });

  test("the password is not sent to another user's port", async (context) => {
    needRoot(context);
    await using stranger = await startStranger();
    const endpoint = { url: `http://127.0.0.1:${stranger.port}`, route: 'loopback' } as const;
    const { port } = await open(
      endpointBy([{ connection: { endpoint, credential: { username: 'opencode', password: OWN } } }]),
    );
    expect(await ask({ port, headers: { authorization } })).toMatchObject({ status: 503 });
    expect(stranger.seen).toEqual([]);
  });

  test('closing ends all connections at once, and stops listening', async () => {
    const instance = await startInstance('it');
    const forwarder = await open(endpointBy([instance]));
    const { port } = forwarder;
    const asking = ask({ port, path: '/event', headers: { authorization } }).catch(() => 'cut');
    await until('the stream to be open', () => instance.streams.size === 1);
    forwarder.close();
    expect(await asking).toBe('cut');
    await until('the stream to be closed', () => instance.streams.size === 0);
    await expect(ask({ port })).rejects.toThrow('ECONNREFUSED');
  });
});

test("adds the endpoint's headers and path, and uses its dialer", async () => {
  const dialled: string[] = [];
  const instance = await startInstance('it', {
    prefix: '/opencode-mcp/v1/i/abc',
    route: 'tailnet',
    headers: { 'CF-Access-Client-Id': 'secret' },
    dial: (host, port) => {
      dialled.push(host);
      return new Promise((resolve) => {
        const socket = connect(port, host, () => resolve(socket));
      });
    },
  });
  const { port } = await open(endpointBy([instance]));
  const headers = { authorization, 'cf-access-client-id': 'of the caller' };
  expect(await ask({ port, path: '/session?a[b]=%5B', headers })).toMatchObject({ status: 200 });
  expect(instance.seen).toMatchObject([
    { url: '/opencode-mcp/v1/i/abc/session?a[b]=%5B', headers: { 'cf-access-client-id': 'secret' } },
  ]);
  expect(dialled).toEqual(['127.0.0.1']);
});

describe('an endpoint that fails', () => {
  test('a request that was not sent goes to the next one, with its body', async () => {
    const [gone, next] = [await startInstance('gone'), await startInstance('next')];
    gone.close();
    const { port } = await open(endpointBy([gone, next]));
    const answer = await ask({
      port,
      method: 'POST',
      headers: { authorization, 'content-length': '5' },
      body: 'hello',
    });
    expect(answer).toMatchObject({ status: 200, text: 'next' });
    expect(next.seen).toMatchObject([{ method: 'POST', body: 'hello' }]);
  });

  test('reads are repeated; requests that may have changed something are not', async () => {
    const [first, second, third] = [await startInstance('1'), await startInstance('2'), await startInstance('3')];
    const { port } = await open(endpointBy([first, second, third]));
    const headers = { authorization };
    const body = { method: 'POST', body: 'once', headers: { ...headers, 'content-length': '4' } };
    expect(await ask({ port, path: '/broken', ...body })).toMatchObject({ status: 502 });
    expect([first, second].map(({ seen }) => seen.length)).toEqual([1, 0]);
    expect(await ask({ port, headers })).toMatchObject({ status: 200, text: '2' });
    second.close();
    expect(await ask({ port, headers })).toMatchObject({ status: 200, text: '3' });
  });

  test('if it refuses the password, it is checked again, and the password is not revealed', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port } = await open(endpointBy([first, second]));
    const answer = await ask({ port, path: '/locked', headers: { authorization } });
    expect([first.seen.length, second.seen.length]).toEqual([1, 1]);
    expect(answer).toMatchObject({ status: 503, text: expect.stringContaining('cannot be driven now') as string });
    expect(JSON.stringify(answer)).not.toContain(OWN);
  });

  test('a read that a node service did not forward goes to the next one; a change does not', async () => {
    const node = await startInstance('node', { route: 'tailnet' });
    const others = [await startInstance('2', { route: 'tailnet' }), await startInstance('3')];
    const { port } = await open(endpointBy([node, ...others]));
    const headers = { authorization };
    expect(await ask({ port, path: '/refused', method: 'POST', headers })).toMatchObject({ status: 502 });
    expect(await ask({ port, path: '/refused', headers })).toMatchObject({ status: 200, text: '3' });
    expect(others.map(({ seen }) => seen.length)).toEqual([1, 1]);
  });

  test('if there is none left, the answer says why, and the fleet is asked again each time', async () => {
    const gone = await startInstance('gone');
    gone.close();
    const back = await startInstance('back');
    const current = endpointBy([gone, gone, gone]);
    const { port } = await open(current);
    expect(await ask({ port, headers: { authorization } })).toMatchObject({ status: 502 });
    expect(await ask({ port, headers: { authorization } })).toMatchObject({
      status: 503,
      text: 'worker cannot be driven now. See that it runs.\n',
    });
    expect(back.seen).toEqual([]);
  });

  test('events arrive unchanged; a stream that ends also ends the others of that endpoint', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port } = await open(endpointBy([first, second]));
    const streams = [0, 1].map(() => ask({ port, path: '/event', headers: { authorization } }).catch(() => 'cut'));
    await until('both to be open', () => first.streams.size === 2);
    for (const stream of [...first.streams].slice(0, 1)) stream.end('data: last\n\n');
    expect(await Promise.all(streams)).toEqual([
      { status: 200, text: 'data: 1\n\ndata: last\n\n', headers: expect.anything() as object },
      'cut',
    ]);
    expect(await ask({ port, headers: { authorization } })).toMatchObject({ text: '2' });
  });

  test('a stream that the caller closes is not a failure', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port } = await open(endpointBy([first, second]));
    const sent = request({ host: '127.0.0.1', port, path: '/event', headers: { authorization }, agent: false });
    sent.on('error', () => {}).once('response', () => sent.destroy());
    sent.end();
    await until('it to be open and left', () => first.seen.length === 1 && first.streams.size === 0);
    expect(await ask({ port, headers: { authorization } })).toMatchObject({ text: '1' });
  });

  test('a silent stream is cut, an active one is not', async () => {
    const clock = new ManualClock();
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port } = await open(endpointBy([first, second], clock));
    let heard = '';
    const cut = new Promise((resolve) => {
      const sent = request({ host: '127.0.0.1', port, path: '/event', headers: { authorization }, agent: false });
      sent.once('response', (answer) =>
        answer
          .setEncoding('utf8')
          .on('data', (part: string) => (heard += part))
          .once('error', resolve),
      );
      sent.on('error', () => {}).end();
    });
    await until('the first event', () => heard === 'data: 1\n\n');
    await clock.advance(SILENCE_MS - 1);
    for (const stream of first.streams) stream.write(': heartbeat\n\n');
    await until('the heartbeat', () => heard.endsWith('heartbeat\n\n'));
    await clock.advance(SILENCE_MS - 1);
    expect(first.streams.size).toBe(1);
    await clock.advance(1);
    await cut;
    expect(await ask({ port, headers: { authorization } })).toMatchObject({ text: '2' });
  });
});
