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

const RANDOM = 'a password of this run';
const authorization = basic(RANDOM);

/** A forwarder, and a function that sends it requests with its password. */
async function open(current: CurrentEndpoint) {
  const forwarder = await openForwarder(() => current.now(), RANDOM);
  onTestFinished(() => forwarder.close());
  const { port } = forwarder;
  const send = (path = '/session', { headers = {}, ...more }: Omit<Asking, 'port' | 'path'> = {}): Promise<Asked> =>
    ask({ port, path, headers: { authorization, ...headers }, ...more });
  return { port, send, close: () => forwarder.close() };
}

/** Opens an event stream. */
function stream(port: number): ClientRequest {
  const sent = request({ host: '127.0.0.1', port, path: '/event', headers: { authorization }, agent: false });
  sent.on('error', () => {}).end();
  return sent;
}

describe('access', () => {
  test("the instance's password replaces the random one, and each stays on its side", async () => {
    const instance = await startInstance('it');
    const { send } = await open(endpointBy([instance]));
    const answer = await send('/session?limit=2&auth_token=x', { headers: { cookie: 'a=b' } });
    expect(answer).toMatchObject({ status: 200, text: 'it' });
    expect(JSON.stringify(answer.headers)).not.toMatch(/stolen|Basic/);
    expect(instance.seen).toMatchObject([{ url: '/session?limit=2', headers: { authorization: basic(OWN) } }]);
    expect(JSON.stringify(instance.seen)).not.toContain(authorization);
    expect(instance.seen[0]?.headers['cookie']).toBeUndefined();
  });

  test.each([
    ['no password', {}, 401],
    ['another password', { authorization: basic('another') }, 401],
    ['the password of the instance', { authorization: basic(OWN) }, 401],
    ['another DNS name', { authorization, host: 'evil.example' }, 421],
    ['the port of another server', { authorization, host: '127.0.0.1:1' }, 421],
    ['a web page', { authorization, origin: 'http://evil.example' }, 403],
    ['a web page at this very address', { authorization, origin: 'http://127.0.0.1' }, 403],
    ['an image in a web page', { authorization, 'sec-fetch-site': 'cross-site' }, 403],
  ])('with %s nothing reaches the instance', async (_, headers, status) => {
    const instance = await startInstance('it');
    const { port } = await open(endpointBy([instance]));
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
    const { send } = await open(endpointBy([{ connection: { endpoint, credential } }]));
    expect(await send()).toMatchObject({ status: 503 });
    expect(stranger.seen).toEqual([]);
  });

  test('closing ends all connections at once, and stops listening', async () => {
    const instance = await startInstance('it');
    const { send, close } = await open(endpointBy([instance]));
    const asking = send('/event').catch(() => 'cut');
    await until('the stream to be open', () => instance.streams.size === 1);
    close();
    expect(await asking).toBe('cut');
    await until('the stream to be closed', () => instance.streams.size === 0);
    await expect(send()).rejects.toThrow('ECONNREFUSED');
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
  const { send } = await open(endpointBy([instance]));
  const headers = { 'cf-access-client-id': 'of the caller' };
  expect(await send('/session?a[b]=%5B', { headers })).toMatchObject({ status: 200 });
  expect(instance.seen).toMatchObject([
    { url: '/opencode-mcp/v1/i/abc/session?a[b]=%5B', headers: { 'cf-access-client-id': 'secret' } },
  ]);
  expect(dialled).toEqual(['127.0.0.1']);
});

describe('an endpoint that fails', () => {
  test('is replaced by the next one for a request that was not sent, with its body', async () => {
    const [gone, next] = [await startInstance('gone'), await startInstance('next')];
    gone.close();
    const { send } = await open(endpointBy([gone, next]));
    expect(await send('/session', { method: 'POST', body: 'hello' })).toMatchObject({ status: 200, text: 'next' });
    expect(next.seen).toMatchObject([{ method: 'POST', body: 'hello' }]);
  });

  test('is replaced for a read, but not for a request that may have changed something', async () => {
    const [first, second, third] = [await startInstance('1'), await startInstance('2'), await startInstance('3')];
    const { send } = await open(endpointBy([first, second, third]));
    expect(await send('/broken', { method: 'POST', body: 'once' })).toMatchObject({ status: 502 });
    expect([first, second].map(({ seen }) => seen.length)).toEqual([1, 0]);
    expect(await send()).toMatchObject({ status: 200, text: '2' });
    second.close();
    expect(await send()).toMatchObject({ status: 200, text: '3' });
  });

  test('that refuses the password is checked again, without revealing the password', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { send } = await open(endpointBy([first, second]));
    const answer = await send('/locked');
    expect([first.seen.length, second.seen.length]).toEqual([1, 1]);
    expect(answer).toMatchObject({ status: 503, text: expect.stringContaining('cannot be driven now') as string });
    expect(JSON.stringify(answer)).not.toContain(OWN);
  });

  test('is replaced for a read that its node service did not forward, but not for a change', async () => {
    const node = await startInstance('node', { route: 'tailnet' });
    const others = [await startInstance('2', { route: 'tailnet' }), await startInstance('3')];
    const { send } = await open(endpointBy([node, ...others]));
    expect(await send('/refused', { method: 'POST' })).toMatchObject({ status: 502 });
    expect(await send('/refused')).toMatchObject({ status: 200, text: '3' });
    expect(others.map(({ seen }) => seen.length)).toEqual([1, 1]);
  });

  test('without a replacement gives the reason, and is searched for again by each request', async () => {
    const gone = await startInstance('gone');
    gone.close();
    const { send } = await open(endpointBy([gone, gone, gone]));
    expect(await send()).toMatchObject({ status: 502 });
    expect(await send()).toMatchObject({ status: 503, text: 'worker cannot be driven now. See that it runs.\n' });
  });

  test('passes events unchanged, and ends all its streams when one of them ends', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { send } = await open(endpointBy([first, second]));
    const streams = [0, 1].map(() => send('/event').catch(() => 'cut'));
    await until('both to be open', () => first.streams.size === 2);
    [...first.streams][0]?.end('data: last\n\n');
    expect(await Promise.all(streams)).toEqual([
      { status: 200, text: 'data: 1\n\ndata: last\n\n', headers: expect.anything() as object },
      'cut',
    ]);
    expect(await send()).toMatchObject({ text: '2' });
  });

  test('does not count as failed when the caller closes a stream', async () => {
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port, send } = await open(endpointBy([first, second]));
    const sent = stream(port);
    sent.once('response', () => sent.destroy());
    await until('the stream to open and close', () => first.seen.length === 1 && first.streams.size === 0);
    expect(await send()).toMatchObject({ text: '1' });
  });

  test('has its stream cut when it is silent for long', async () => {
    const clock = new ManualClock();
    const [first, second] = [await startInstance('1'), await startInstance('2')];
    const { port, send } = await open(endpointBy([first, second], clock));
    let received = '';
    const cut = new Promise((resolve) => {
      stream(port).once('response', (answer) =>
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
