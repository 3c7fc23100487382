import { type ClientRequest, request } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';

import { openForwarder } from '../../src/attach/forwarder.ts';
import { SILENCE_MS, type CurrentEndpoint } from '../../src/attach/current-endpoint.ts';
import { needRoot } from '../discovery/as-root.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { startStranger } from '../rig/stranger.ts';
import { until } from '../rig/wait.ts';
import { ask, type Asked, type Asking, askUpgrade, basic, OWN, startInstance, endpointBy } from './instances.ts';

const RANDOM_PASSWORD = 'a password of this run';
const authorization = basic(RANDOM_PASSWORD);

/** A forwarder, and a function that sends it requests with its password. */
async function openWithPassword(current: CurrentEndpoint) {
  const forwarder = await openForwarder(() => current.now(), RANDOM_PASSWORD);
  onTestFinished(() => forwarder.close());
  const { port } = forwarder;
  const send = (path = '/session', { headers = {}, ...more }: Omit<Asking, 'port' | 'path'> = {}): Promise<Asked> =>
    ask({ port, path, headers: { authorization, ...headers }, ...more });
  return { port, send, close: () => forwarder.close() };
}

/** Opens an event stream, whose errors are ignored. */
function openStream(port: number): ClientRequest {
  const streamRequest = request({ host: '127.0.0.1', port, path: '/event', headers: { authorization }, agent: false });
  streamRequest.on('error', () => {}).end();
  return streamRequest;
}

describe('access', () => {
  test("the forwarder replaces the random password by the instance's, and reveals neither to the other side", async () => {
    const instance = await startInstance('it');
    const { send } = await openWithPassword(endpointBy([instance]));
    const answer = await send('/session?limit=2&auth_token=x', { headers: { cookie: 'a=b' } });
    expect(answer).toMatchObject({ status: 200, text: 'it' });
    expect(JSON.stringify(answer.headers)).not.toMatch(/stolen|Basic/);
    expect(instance.seen).toMatchObject([{ url: '/session?limit=2', headers: { authorization: basic(OWN) } }]);
    expect(JSON.stringify(instance.seen)).not.toContain(authorization);
    expect(instance.seen[0]?.headers['cookie']).toBeUndefined();
  });

  test.each([
    ['without a password', {}, 401],
    ['with another password', { authorization: basic('another') }, 401],
    ["with the instance's password", { authorization: basic(OWN) }, 401],
    ['to another DNS name', { authorization, host: 'evil.example' }, 421],
    ["to another server's port", { authorization, host: '127.0.0.1:1' }, 421],
    ['from a web page', { authorization, origin: 'http://evil.example' }, 403],
    ['from a web page at the same address', { authorization, origin: 'http://127.0.0.1' }, 403],
    ['of an image in a web page', { authorization, 'sec-fetch-site': 'cross-site' }, 403],
  ])('a request %s does not reach the instance', async (_, headers, status) => {
    const instance = await startInstance('it');
    const { port } = await openWithPassword(endpointBy([instance]));
    expect(await ask({ port, headers })).toMatchObject({ status });
    expect(await askUpgrade(port, headers)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(instance.seen).toEqual([]);
    expect(await askUpgrade(port, { authorization })).toMatch(/^HTTP\/1.1 101 /);
  });

  test("the password is not sent to another user's port", async (context) => {
    needRoot(context);
    await using stranger = await startStranger();
    const endpoint = { url: `http://127.0.0.1:${stranger.port}`, route: 'loopback' } as const;
    const credential = { username: 'opencode', password: OWN };
    const { send } = await openWithPassword(endpointBy([{ connection: { endpoint, credential } }]));
    expect(await send()).toMatchObject({ status: 503 });
    expect(stranger.seen).toEqual([]);
  });

  test('closing the forwarder ends all its connections and stops listening', async () => {
    const instance = await startInstance('it');
    const { send, close } = await openWithPassword(endpointBy([instance]));
    const streamAnswer = send('/event').catch(() => 'cut');
    await until('the stream to be open', () => instance.streams.size === 1);
    close();
    expect(await streamAnswer).toBe('cut');
    await until('the stream to be closed', () => instance.streams.size === 0);
    await expect(send()).rejects.toThrow('ECONNREFUSED');
  });
});

test("the forwarder adds the endpoint's headers and path, and uses its dialer", async () => {
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
  const { send } = await openWithPassword(endpointBy([instance]));
  const headers = { 'cf-access-client-id': 'of the caller' };
  expect(await send('/session?a[b]=%5B', { headers })).toMatchObject({ status: 200 });
  expect(instance.seen).toMatchObject([
    { url: '/opencode-mcp/v1/i/abc/session?a[b]=%5B', headers: { 'cf-access-client-id': 'secret' } },
  ]);
  expect(dialled).toEqual(['127.0.0.1']);
});

describe('when an endpoint fails', () => {
  test('a request that was not sent goes to the next endpoint, with its body', async () => {
    const [closed, next] = [await startInstance('gone'), await startInstance('next')];
    closed.close();
    const { send } = await openWithPassword(endpointBy([closed, next]));
    expect(await send('/session', { method: 'POST', body: 'hello' })).toMatchObject({ status: 200, text: 'next' });
    expect(next.seen).toMatchObject([{ method: 'POST', body: 'hello' }]);
  });

  test('a read goes to the next endpoint, a request that may have changed something does not', async () => {
    const [first, second, third] = [await startInstance('1'), await startInstance('2'), await startInstance('3')];
    const { send } = await openWithPassword(endpointBy([first, second, third]));
    expect(await send('/broken', { method: 'POST', body: 'once' })).toMatchObject({ status: 502 });
    expect([first, second].map(({ seen }) => seen.length)).toEqual([1, 0]);
    expect(await send()).toMatchObject({ status: 200, text: '2' });
    second.close();
    expect(await send()).toMatchObject({ status: 200, text: '3' });
  });

  test('an endpoint that refuses the password is checked again, and the answer does not contain the password', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { send } = await openWithPassword(endpointBy([first, second]));
    const answer = await send('/locked');
    expect([first.seen.length, second.seen.length]).toEqual([1, 1]);
    expect(answer).toMatchObject({ status: 503, text: expect.stringContaining('cannot be driven now') as string });
    expect(JSON.stringify(answer)).not.toContain(OWN);
  });

  test('a read that the node service did not forward goes to the next endpoint, a change does not', async () => {
    const node = await startInstance('node', { route: 'tailnet' });
    const others = [await startInstance('2', { route: 'tailnet' }), await startInstance('3')];
    const { send } = await openWithPassword(endpointBy([node, ...others]));
    expect(await send('/refused', { method: 'POST' })).toMatchObject({ status: 502 });
    expect(await send('/refused')).toMatchObject({ status: 200, text: '3' });
    expect(others.map(({ seen }) => seen.length)).toEqual([1, 1]);
  });

  test('a request without another endpoint fails with the reason, and the next request looks for an endpoint again', async () => {
    const closed = await startInstance('gone');
    closed.close();
    const { send } = await openWithPassword(endpointBy([closed, closed, closed]));
    expect(await send()).toMatchObject({ status: 502 });
    expect(await send()).toMatchObject({ status: 503, text: 'worker cannot be driven now. See that it runs.\n' });
  });

  test('events pass unchanged, and all streams of an endpoint end when one of them ends', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { send } = await openWithPassword(endpointBy([first, second]));
    const streams = [0, 1].map(() => send('/event').catch(() => 'cut'));
    await until('both streams to be open', () => first.streams.size === 2);
    [...first.streams][0]?.end('data: last\n\n');
    expect(await Promise.all(streams)).toEqual([
      { status: 200, text: 'data: 1\n\ndata: last\n\n', headers: expect.anything() as object },
      'cut',
    ]);
    expect(await send()).toMatchObject({ text: '2' });
  });

  test('an endpoint does not count as failed when the caller closes a stream', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port, send } = await openWithPassword(endpointBy([first, second]));
    const streamRequest = openStream(port);
    streamRequest.once('response', () => streamRequest.destroy());
    await until('the stream to open and close', () => first.seen.length === 1 && first.streams.size === 0);
    expect(await send()).toMatchObject({ text: '1' });
  });

  test('a stream is cut after a long silence', async () => {
    const clock = new ManualClock();
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port, send } = await openWithPassword(endpointBy([first, second], clock));
    let received = '';
    const cut = new Promise((resolve) => {
      openStream(port).once('response', (answer) =>
        answer
          .setEncoding('utf8')
          .on('data', (part: string) => (received += part))
          .once('error', resolve),
      );
    });
    await until('the first event', () => received === 'data: 1\n\n');
    await clock.advance(SILENCE_MS - 1);
    for (const stream of first.streams) stream.write(': heartbeat\n\n');
    await until('the heartbeat', () => received.endsWith('heartbeat\n\n'));
    await clock.advance(SILENCE_MS - 1);
    expect(first.streams.size).toBe(1);
    await clock.advance(1);
    await cut;
    expect(await send()).toMatchObject({ text: '2' });
  });
});
