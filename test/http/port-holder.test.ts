import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';

import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Endpoint } from '../../src/model/candidate.ts';
import { type Connection, exchange, openStream } from '../../src/http/exchange.ts';
import { asUser, needRoot } from '../discovery/as-root.ts';
import { STRANGER_UID } from '../rig/stranger.ts';
import { within } from '../rig/wait.ts';

const OWNER_UID = 65_533;
const limits = { timeoutMs: 10_000, maxBytes: 1024 };
const credential = { username: 'opencode', password: 'secret' };

interface Listener {
  readonly port: number;
  readonly server: Server;
  /** Stops listening; connections stay open. */
  readonly stop: () => void;
  readonly disconnect: () => void;
  /** The Authorization header of each request. */
  readonly seen: readonly (string | undefined)[];
}

/** A server in this process, on a socket created by `uid`. */
async function listen(uid: number, { host = '127.0.0.1', port = 0, status = 200 } = {}): Promise<Listener> {
  const seen: (string | undefined)[] = [];
  const server = createServer({ keepAliveTimeout: 0 }, ({ headers, url }: IncomingMessage, response) => {
    seen.push(headers.authorization);
    const type = url === '/stream' ? 'text/event-stream' : 'application/json';
    response.writeHead(status, { 'content-type': type }).end('{}');
  });
  // Node's HTTP server would close idle connections when it stops listening.
  const sockets = new Set<Socket>();
  const listener = createTcpServer((socket) => {
    sockets.add(socket);
    server.emit('connection', socket);
  });
  await asUser(uid, async () => {
    listener.listen(port, host);
    await once(listener, 'listening');
  });
  const stop = (): void => void listener.close();
  const disconnect = (): void => sockets.forEach((socket) => socket.destroy());
  onTestFinished(stop);
  onTestFinished(disconnect);
  return { port: (listener.address() as AddressInfo).port, server: listener, stop, disconnect, seen };
}

function connectionTo(
  port: number,
  { host = '127.0.0.1', ...fields }: Partial<Endpoint> & { host?: string } = {},
): Connection {
  return { endpoint: { url: `http://${host}:${port}`, route: 'loopback', ...fields }, credential };
}

/** The error of a request whose password was held back. */
const WITHHELD = { withheld: expect.stringContaining('no password was sent') };

const get = (connection: Connection): Promise<unknown> => exchange(connection, '/x', {}, limits);

beforeEach((context) => needRoot(context));

describe('a password is sent', () => {
  test('to a port of root, for another user', async () => {
    const { port, seen } = await listen(0);
    await asUser(STRANGER_UID, () => get(connectionTo(port)));
    expect(seen).toEqual([expect.any(String)]);
  });

  test('to a port of the registration’s owner', async () => {
    const { port, seen } = await listen(OWNER_UID);
    await get(connectionTo(port, { ownerUid: OWNER_UID }));
    expect(seen).toEqual([expect.any(String)]);
  });

  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::', '127.0.0.1'],
    ['::', '[::1]'],
    ['::1', '[::1]'],
    ['0.0.0.0', '127.0.0.1'],
    ['0.0.0.0', '127.0.0.2'],
    ['127.0.0.1', 'localhost'],
  ])('to a port of this user that listens at %s, if connected to at %s', async (at, host) => {
    const { port, seen } = await listen(0, { host: at });
    await get(connectionTo(port, { host }));
    expect(seen).toEqual(['Basic b3BlbmNvZGU6c2VjcmV0']);
  });
});

test('root’s listener may pass the connection to a worker of another user', async () => {
  const { port, seen, server } = await listen(0);
  // The worker accepts the connection, and a third user checks it.
  server.prependOnceListener('connection', () => {
    process.seteuid?.(0);
    process.seteuid?.(OWNER_UID);
  });
  await asUser(STRANGER_UID, () => get(connectionTo(port)));
  expect(seen).toEqual([expect.any(String)]);
});

describe('nothing is sent to a port of another user', () => {
  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['127.0.0.1', 'localhost'],
    ['0.0.0.0', '127.0.0.3'],
    ['::', '127.0.0.1'],
    ['::ffff:127.0.0.1', '127.0.0.1'],
    ['::ffff:0.0.0.0', '127.0.0.1'],
    ['::', '[::1]'],
    ['::1', '[::1]'],
  ])('that listens at %s, if connected to at %s', async (at, host) => {
    const { port, seen } = await listen(STRANGER_UID, { host: at });
    await expect(get(connectionTo(port, { host, ownerUid: OWNER_UID }))).rejects.toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(
        /no password was sent: user id 65534 holds port \d+ of \S+, not this user \(0\), the registration's owner \(65533\) or root; end that process/,
      ),
    });
    expect(seen).toEqual([]);
  });

  test('by an event stream', async () => {
    const { port, seen } = await listen(STRANGER_UID);
    const { signal } = new AbortController();
    await expect(openStream(connectionTo(port), '/stream', { headersTimeoutMs: 10_000, signal })).rejects.toMatchObject(
      WITHHELD,
    );
    expect(seen).toEqual([]);
  });

  test('that a person configured by URL, with the header of an access proxy', async () => {
    const { port, seen } = await listen(STRANGER_UID);
    const { endpoint } = connectionTo(port, { configured: true, headers: { 'x-token': 'secret' } });
    await expect(get({ endpoint })).rejects.toMatchObject(WITHHELD);
    expect(seen).toEqual([]);
  });

  test('that accepts one connection and stops listening', async () => {
    const bytes: Buffer[] = [];
    const server = createTcpServer((socket) => {
      server.close();
      socket.on('data', (chunk) => bytes.push(chunk)).on('error', () => {});
    });
    await asUser(STRANGER_UID, async () => {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      // The same user also accepts the connection.
      const request = get(connectionTo(port, { configured: true }));
      await once(server, 'connection');
      process.seteuid?.(0);
      await expect(request).rejects.toMatchObject(WITHHELD);
    });
    expect(Buffer.concat(bytes).toString()).toBe('');
  });

  test('that accepts one connection and leaves the port to this user', async () => {
    const bytes: Buffer[] = [];
    const ours = createTcpServer();
    onTestFinished(() => void ours.close());
    const server = createTcpServer((socket) => {
      server.close();
      process.seteuid?.(0);
      process.seteuid?.(OWNER_UID);
      ours.listen((socket.address() as AddressInfo).port, '127.0.0.1');
      socket.on('data', (chunk) => bytes.push(chunk)).on('error', () => {});
    });
    await asUser(STRANGER_UID, async () => {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const request = exchange(connectionTo(port), '/x', {}, { ...limits, timeoutMs: 1_000 });
      await request.catch(() => {});
      expect(Buffer.concat(bytes).toString()).toBe('');
      await expect(request).rejects.toMatchObject(WITHHELD);
    });
    expect(ours.listening).toBe(true);
  });

  test('except requests without a password', async () => {
    const { port, seen } = await listen(STRANGER_UID);
    const { endpoint } = connectionTo(port);
    await get({ endpoint });
    expect(seen).toEqual([undefined]);
    // The connection is pooled, and its holder unknown.
    await expect(get({ endpoint, credential })).rejects.toMatchObject(WITHHELD);
    expect(seen).toEqual([undefined]);
  });
});

test('the holder is determined once for each connection', async () => {
  const first = await listen(0);
  const connection = connectionTo(first.port);
  await get(connection);
  first.stop();
  const second = await listen(STRANGER_UID, { port: first.port });
  // The connection is still open and leads to the first listener.
  await get(connection);
  expect(first.seen).toHaveLength(2);
  first.disconnect();
  await expect(within(get(connection), 'the answer')).rejects.toMatchObject(WITHHELD);
  expect(second.seen).toEqual([]);
});

test('a pooled connection of unknown holder is not used for a password', async () => {
  const first = await listen(STRANGER_UID);
  const { endpoint } = connectionTo(first.port);
  await get({ endpoint });
  first.stop();
  const second = await listen(0, { port: first.port });
  // Without a password, the pooled connection may be used.
  await get({ endpoint });
  await get({ endpoint, credential });
  expect(first.seen).toEqual([undefined, undefined]);
  expect(second.seen).toEqual([expect.any(String)]);
});

test('a listener of another user beside ours is ignored if ours has the exact address', async () => {
  const { port, seen } = await listen(0);
  const beside = createTcpServer();
  onTestFinished(() => void beside.close());
  await asUser(STRANGER_UID, async () => {
    beside.listen({ port, host: '::', ipv6Only: true });
    await once(beside, 'listening');
  });
  await get(connectionTo(port));
  expect(seen).toEqual([expect.any(String)]);
});

afterEach(() => {
  process.seteuid?.(0);
});
