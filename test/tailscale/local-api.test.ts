import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { AddressSystem } from '../../src/tailscale/address.ts';
import { createLocalApi } from '../../src/tailscale/local-api.ts';
import type { LocalApi, LocalApiError } from '../../src/tailscale/types.ts';
import { ADA, EVE, type FakeLocalApi, json, startFakeLocalApi, statusText, write } from '../rig/fake/fake-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { tempDir } from '../rig/temp.ts';
import { deferred, until, within } from '../rig/wait.ts';

function disposeAtEnd<T extends AsyncDisposable>(resource: T): T {
  onTestFinished(() => resource[Symbol.asyncDispose]());
  return resource;
}

async function start(...options: Parameters<typeof startFakeLocalApi>): Promise<{ fake: FakeLocalApi; api: LocalApi }> {
  const fake = disposeAtEnd(await startFakeLocalApi(...options));
  return { fake, api: apiAt(fake.socketPath) };
}

function apiAt(socketPath: string, clock = systemClock): LocalApi {
  return createLocalApi({ socketPath, clock, logger: silentLogger });
}

async function failureOf(work: Promise<unknown>): Promise<LocalApiError> {
  const error: unknown = await work.catch((reason: unknown) => reason);
  expect(error).toMatchObject({ name: 'LocalApiError' });
  return error as LocalApiError;
}

describe('status', () => {
  it('distinguishes IDs above 2^53', async () => {
    const { fake, api } = await start({
      peers: [{ UserID: ADA }, { UserID: EVE }],
      status: { User: { [`${ADA}`]: { ID: ADA, LoginName: 'ada' }, [`${EVE}`]: { ID: EVE, LoginName: 'eve' } } },
    });
    // JSON.parse would round them to the same number.
    expect([Number(ADA), statusText(fake)]).toEqual([Number(EVE), expect.stringContaining(`"UserID":${ADA}`)]);
    const { peers, logins } = await api.status();
    expect(peers.map(({ userId }) => logins.get(userId))).toEqual(['ada', 'eve']);
  });

  it('does not change digits inside a name', async () => {
    const HostName = 'x","UserID":12345678901234567890,"y":"';
    const { api } = await start({ peers: [{ HostName }] });
    expect((await api.status()).peers[0]).toMatchObject({ hostName: HostName, userId: `${ADA}` });
  });

  it.each([
    { name: 'a sharee', peer: { ShareeNode: true }, shared: true },
    { name: 'shared in by its user', peer: { AltSharerUserID: EVE }, shared: true },
    { name: 'of another tailnet', peer: { DNSName: 'box.other.ts.net.' }, shared: true },
    { name: 'of this tailnet, in capitals', peer: { DNSName: 'Box.TAILNET.test.' }, shared: false },
    { name: 'without a DNS name', peer: { DNSName: '' }, shared: false },
    { name: 'a hired exit node', peer: { DNSName: 'de-fra-wg-001.mullvad.ts.net.' }, shared: false, hired: true },
    { name: 'a hired exit node by its tag', peer: { Tags: ['tag:mullvad-exit-node'] }, shared: false, hired: true },
  ])('reports a node that is $name', async ({ peer, shared, hired = false }) => {
    const { api } = await start({ peers: [peer] });
    expect((await api.status()).peers[0]).toMatchObject({ shared, exitNodeForHire: hired });
  });

  it('leaves out invalid peers and addresses', async () => {
    const { api } = await start({
      peers: [{ ID: '' }, { TailscaleIPs: ['evil.example', '::1%eth0/../', '100.64.0.9'] }],
    });
    expect((await api.status()).peers.map(({ addresses }) => addresses)).toEqual([['100.64.0.9']]);
  });

  it('reads 5,000 peers', async () => {
    const { api } = await start({ peers: Array.from({ length: 5000 }, () => ({})) });
    expect((await api.status()).peers).toHaveLength(5000);
  });

  it('reports userspace networking and a daemon that is logged out', async () => {
    const { api } = await start({ status: { TUN: false, BackendState: 'NeedsLogin', Self: { ID: '' }, Peer: null } });
    expect(await api.status()).toMatchObject({ tun: false, backendState: 'NeedsLogin', self: undefined, peers: [] });
  });

  it.each<[string, string, RegExp]>([
    ['is not JSON', '{"BackendState":"Run', /not JSON/],
    ['is not a status', '[]', /not a status/],
  ])('rejects an answer that %s', async (_, text, message) => {
    const { fake, api } = await start();
    fake.answers.set('status', (_request, response) => json(response, text));
    expect(await failureOf(api.status())).toMatchObject({ kind: 'failed', message: expect.stringMatching(message) });
  });

  it('rejects after a time limit', async () => {
    const { fake } = await start();
    fake.answers.set('status', () => {});
    const error = await failureOf(apiAt(fake.socketPath, leapingClock()).status());
    expect(error).toMatchObject({ kind: 'failed', message: expect.stringContaining('within 5000 ms') });
  });

  it('rejects an answer that is too large', async () => {
    const { fake, api } = await start();
    fake.answers.set('whois', (_, response) => json(response, 'x'.repeat(2 * 1024 * 1024)));
    expect((await failureOf(api.whois('100.64.0.2:1'))).message).toContain('larger than 1048576 bytes');
  });

  it('rejects with the reason of its signal', async () => {
    const { fake, api } = await start();
    const requested = deferred<void>();
    fake.answers.set('status', () => requested.resolve());
    const abort = new AbortController();
    const status = api.status(abort.signal);
    await requested.promise;
    abort.abort(new Error('enough'));
    await expect(status).rejects.toThrow('enough');
  });

  it('gives advice after HTTP 403', async () => {
    const { fake, api } = await start();
    fake.answers.set('status', (_, response) =>
      response.writeHead(403).end('{"error":"status access\\u001b[2J denied"}'),
    );
    const error = await failureOf(api.status());
    expect(error).toMatchObject({
      kind: 'denied',
      message: expect.stringContaining('it answered "status access denied"; run as'),
    });
  });

  it('distinguishes a missing socket from one without a listener', async () => {
    const temp = disposeAtEnd(tempDir());
    const missing = await failureOf(apiAt(join(temp.path, 'no.sock')).status());
    expect(missing).toMatchObject({ kind: 'missing', message: expect.stringContaining('TAILSCALE_SOCKET') });
    await writeFile(join(temp.path, 'dead.sock'), '');
    const unserved = await failureOf(apiAt(join(temp.path, 'dead.sock')).status());
    expect(unserved).toMatchObject({ kind: 'missing', message: expect.stringContaining('start tailscaled') });
  });
});

it("sends the macOS app's token, and the host that tailscaled requires", async () => {
  const seen: unknown[] = [];
  const app = disposeAtEnd(
    await listenHttp((request, response) => {
      seen.push([request.headers.host, request.headers.authorization, request.headers.origin]);
      json(response, statusText({ peers: [], status: {} }));
    }),
  );
  const system: AddressSystem = {
    platform: 'darwin',
    exists: () => false,
    readLink: () => String(app.port),
    readText: () => 'proof\n',
    appFiles: () => '',
  };
  await createLocalApi({ clock: systemClock, logger: silentLogger, system }).status();
  const token = Buffer.from(':proof').toString('base64');
  expect(seen).toEqual([['local-tailscaled.sock', `Basic ${token}`, undefined]]);
});

describe('whois', () => {
  it('returns node, user and capabilities with exact ids', async () => {
    const { fake, api } = await start();
    fake.answers.set('whois', (_, response) =>
      json(
        response,
        write({
          Node: { ID: 2n ** 60n + 1n, StableID: 'nX', Name: 'box.tailnet.test.', User: ADA, Tags: ['tag:a'] },
          UserProfile: { ID: ADA, LoginName: 'tagged-devices' },
          CapMap: { 'example.com/cap/x': [{ role: 'read' }], 'example.com/cap/none': null },
        }),
      ),
    );
    expect(await api.whois('[fd7a::2]:5')).toEqual({
      node: { id: 'nX', dnsName: 'box.tailnet.test', tags: ['tag:a'], userId: `${ADA}` },
      login: 'tagged-devices',
      userId: `${ADA}`,
      capabilities: new Map([
        ['example.com/cap/x', [{ role: 'read' }]],
        ['example.com/cap/none', []],
      ]),
    });
    expect(fake.asked).toEqual(['whois?addr=%5Bfd7a%3A%3A2%5D%3A5']);
  });

  it('returns undefined for an unknown address, and rejects an answer without a node', async () => {
    const { fake, api } = await start();
    expect(await api.whois('100.64.0.2:1')).toBeUndefined();
    fake.answers.set('whois', (_, response) => json(response, '{"UserProfile":{"LoginName":"ada"}}'));
    expect(await failureOf(api.whois('100.64.0.2:1'))).toMatchObject({ kind: 'failed' });
  });

  it('reuses its connection, and replaces a connection that broke in between', async () => {
    const { fake, api } = await start();
    const sockets = new Set<unknown>();
    let breaks = false;
    fake.answers.set('whois', ({ socket }, response) => {
      if (breaks && sockets.has(socket)) {
        socket.destroy();
        return;
      }
      sockets.add(socket);
      response.writeHead(404).end();
    });
    await api.whois('100.64.0.2:1');
    await api.whois('100.64.0.2:2');
    expect(sockets.size).toBe(1);
    breaks = true;
    expect(await api.whois('100.64.0.2:3')).toBeUndefined();
    expect(sockets.size).toBe(2);
  });

  it('fails if a new connection breaks', async () => {
    const { fake, api } = await start();
    fake.answers.set('whois', ({ socket }) => void socket.destroy());
    expect(await failureOf(api.whois('100.64.0.2:1'))).toMatchObject({ kind: 'failed' });
    expect(fake.asked).toHaveLength(1);
  });
});

describe('watch', () => {
  async function take(hints: AsyncIterable<void>): Promise<AsyncIterator<void>> {
    const iterator = hints[Symbol.asyncIterator]();
    await within(iterator.next(), 'the first notification');
    return iterator;
  }

  it.each([
    { version: '1.98.10-t0', mask: 274 },
    { version: '1.100.0', mask: 20_498 },
    { version: '2.0.0', mask: 20_498 },
    { version: undefined, mask: 274 },
  ])('asks $version with mask $mask', async ({ version, mask }) => {
    const { fake, api } = await start({ status: { Version: version } });
    const abort = new AbortController();
    await take(api.watch(abort.signal));
    abort.abort();
    expect(fake.asked).toEqual(['status?peers=false', `watch-ipn-bus?mask=${mask}`]);
  });

  it('yields after a change with any text, and ends when its signal aborts', async () => {
    const { fake, api } = await start();
    const abort = new AbortController();
    const hints = await take(api.watch(abort.signal));
    await fake.busOpened;
    for (let line = 0; line < 500; line += 1) fake.notify('x'.repeat(10_000));
    expect((await within(hints.next(), 'a notification')).done).toBe(false);
    abort.abort();
    await until('the end', async () => (await hints.next()).done);
  });

  it.each(['endBus', 'breakBus'] as const)('yields when the bus is closed: %s', async (close) => {
    const { fake } = await start();
    const abort = new AbortController();
    // The clock never ends the pause before a second attempt.
    const sleep: Clock['sleep'] = (ms, signal) =>
      ms === 5000
        ? systemClock.sleep(ms, signal)
        : new Promise((resolve) => signal?.addEventListener('abort', () => resolve()));
    const hints = await take(apiAt(fake.socketPath, { ...systemClock, sleep }).watch(abort.signal));
    // The first hint is for the start of listening, the second for the open bus.
    await within(hints.next(), 'the open bus');
    fake[close]();
    expect((await within(hints.next(), 'a hint')).done).toBe(false);
    abort.abort();
  });

  it('reconnects when the bus ends and after refused attempts', async () => {
    const { fake } = await start();
    const abort = new AbortController();
    // Pauses take no time; time limits of requests, which have other lengths, do.
    const sleep: Clock['sleep'] = (ms, signal) => (ms === 5000 ? systemClock.sleep(ms, signal) : nextTurn());
    await take(apiAt(fake.socketPath, { ...systemClock, sleep }).watch(abort.signal));
    await fake.busOpened;
    fake.endBus();
    await until('a second bus', () => fake.asked.filter((path) => path.startsWith('watch')).length === 2);
    fake.answers.set('watch-ipn-bus', (_, response) => response.writeHead(500).end());
    fake.endBus();
    await until('refused attempts', () => fake.asked.filter((path) => path.startsWith('watch')).length > 5);
    abort.abort();
  });

  it('opens nothing for a signal that has aborted', async () => {
    const { fake, api } = await start();
    expect((await api.watch(AbortSignal.abort())[Symbol.asyncIterator]().next()).done).toBe(true);
    expect(fake.asked).toEqual([]);
  });
});

describe('dial', () => {
  async function read(stream: AsyncIterable<Uint8Array>): Promise<string> {
    let text = '';
    for await (const chunk of stream) text += Buffer.from(chunk).toString();
    return text;
  }

  it('returns a stream to the peer', async () => {
    const web = disposeAtEnd(await listenHttp((_, response) => response.end('from the peer')));
    const { fake, api } = await start({ dial: () => web.port });
    const stream = await api.dial('100.64.0.2', 4096);
    stream.write('GET / HTTP/1.0\r\n\r\n');
    expect(await read(stream)).toContain('from the peer');
    expect(fake.dialled).toEqual(['100.64.0.2:4096']);
  });

  /** A LocalAPI that answers every request with this text, or with nothing. */
  async function startFixedAnswer(text?: string): Promise<{ api: LocalApi; connected: Promise<Socket> }> {
    const server = createServer();
    const connected = deferred<Socket>();
    server.on('connection', (socket) => {
      connected.resolve(socket);
      socket.on('error', () => {}).once('data', () => text !== undefined && socket.end(text));
    });
    const socketPath = join(disposeAtEnd(tempDir()).path, 'local-api.sock');
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    onTestFinished(() => void server.close());
    return { api: apiAt(socketPath), connected: connected.promise };
  }

  it('keeps data that the peer sends first', async () => {
    const { api } = await startFixedAnswer(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: ts-dial\r\nConnection: upgrade\r\n\r\nhello',
    );
    expect(await read(await api.dial('100.64.0.2', 22))).toBe('hello');
  });

  it('reports a failed dial, and a stopped daemon', async () => {
    const { fake, api } = await start();
    expect(await failureOf(api.dial('100.64.0.2', 1))).toMatchObject({
      kind: 'failed',
      message: expect.stringContaining('HTTP 502, it answered "dial failure: connection was refused'),
    });
    fake.status = { BackendState: 'Stopped' };
    expect(await failureOf(api.dial('100.64.0.2', 1))).toMatchObject({
      kind: 'stopped',
      message: expect.stringContaining('run tailscale up'),
    });
  });

  it('connects directly only to the requested address', async () => {
    const web = disposeAtEnd(await listenHttp((_, response) => response.end('direct')));
    const address = `127.0.0.1:${web.port}`;
    const { api } = await startFixedAnswer(
      `HTTP/1.1 200 OK\r\nDial-Self: true\r\nDial-Addr: ${address}\r\nContent-Length: 0\r\n\r\n`,
    );
    const stream = await api.dial('127.0.0.1', web.port);
    stream.write('GET / HTTP/1.0\r\n\r\n');
    expect(await read(stream)).toContain('direct');
    await expect(api.dial('127.0.0.2', web.port)).rejects.toThrow('not followed');
    await expect(api.dial('127.0.0.1', web.port - 1)).rejects.toThrow('not followed');
    await expect(api.dial('localhost', web.port)).rejects.toThrow('not followed');
  });

  it('rejects and disconnects when its signal aborts', async () => {
    const { api, connected } = await startFixedAnswer();
    const abort = new AbortController();
    const dialling = api.dial('100.64.0.2', 1, abort.signal);
    const ended = once(await connected, 'close');
    abort.abort(new Error('enough'));
    await expect(dialling).rejects.toThrow('enough');
    await within(ended, 'the end of the connection');
  });
});
