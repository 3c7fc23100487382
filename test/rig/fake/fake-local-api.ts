import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

import { listenHttp } from '../http-listener.ts';
import { deferred } from '../wait.ts';
import { tempDir } from '../temp.ts';

/** Fields of a peer as tailscaled writes it; the others are filled in. */
export type FakePeer = Readonly<Record<string, unknown>>;

export interface FakeLocalApiOptions {
  /** Merged over the status of a running node without peers. */
  readonly status?: Readonly<Record<string, unknown>>;
  readonly peers?: readonly FakePeer[];
  /** The loopback port behind a dialled host and port. */
  readonly dial?: (host: string, port: number) => number | undefined;
}

export async function startFakeLocalApi(options: FakeLocalApiOptions = {}): Promise<FakeLocalApi> {
  const temp = tempDir('fake-local-api');
  const fake = new FakeLocalApi(join(temp.path, 'tailscaled.sock'), options, async () => {
    await listener.close();
    await temp.close();
  });
  const listener = await listenHttp(fake.serve, fake.socketPath);
  listener.server.on('upgrade', fake.dial);
  return fake;
}

/** A scripted LocalAPI on a Unix socket. */
export class FakeLocalApi implements AsyncDisposable {
  readonly socketPath: string;
  /** Requested paths with their queries. */
  readonly asked: string[] = [];
  /** `host:port` of every dial. */
  readonly dialled: string[] = [];
  peers: readonly FakePeer[];
  status: Readonly<Record<string, unknown>>;
  /** Replaces the built-in answers, by route: `status`, `whois`, `watch-ipn-bus`. */
  readonly answers = new Map<string, RequestListener>();
  readonly close: () => Promise<void>;
  readonly #options: FakeLocalApiOptions;
  readonly #buses = new Set<ServerResponse>();
  readonly #busOpened = deferred<void>();

  constructor(socketPath: string, options: FakeLocalApiOptions, close: () => Promise<void>) {
    this.socketPath = socketPath;
    this.peers = options.peers ?? [];
    this.status = options.status ?? {};
    this.close = close;
    this.#options = options;
  }

  /** Resolves when a bus is open. */
  get busOpened(): Promise<void> {
    return this.#busOpened.promise;
  }

  /** Writes a line to every open bus. */
  notify(line = '{"Version":"1.98.10"}'): void {
    for (const bus of this.#buses) bus.write(`${line}\n`);
  }

  /** Ends every open bus, as a restart of the daemon does. */
  endBus(): void {
    for (const bus of this.#buses) bus.end();
    this.#buses.clear();
  }

  /** Breaks every open bus, as a killed daemon does. */
  breakBus(): void {
    for (const bus of this.#buses) bus.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  readonly serve = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url ?? '', 'http://local');
    const name = url.pathname.replace('/localapi/v0/', '');
    this.asked.push(name + url.search);
    const answer = this.answers.get(name);
    if (answer !== undefined) answer(request, response);
    else if (name === 'status') json(response, statusText(this, url.searchParams.get('peers') !== 'false'));
    else if (name === 'whois') response.writeHead(404).end('no match for IP:port\n');
    else if (name === 'watch-ipn-bus') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write('{"Version":"1.98.10","State":6}\n');
      this.#buses.add(response);
      response.once('close', () => this.#buses.delete(response));
      this.#busOpened.resolve();
    } else response.writeHead(404).end('not found\n');
  };

  readonly dial = ({ headers }: IncomingMessage, socket: Duplex): void => {
    const host = String(headers['dial-host']);
    const port = Number(headers['dial-port']);
    this.dialled.push(`${host}:${port}`);
    const target = this.#options.dial?.(host, port);
    if (target === undefined) {
      const text = 'dial failure: connection was refused\n';
      socket.end(`HTTP/1.1 502 Bad Gateway\r\nContent-Length: ${text.length}\r\n\r\n${text}`);
      return;
    }
    const out = connect(target, '127.0.0.1', () => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: ts-dial\r\nConnection: upgrade\r\n\r\n');
      socket.pipe(out).pipe(socket);
    });
    out.on('error', () => socket.destroy());
    socket.once('close', () => out.destroy());
  };
}

export function json(response: ServerResponse, text: string): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(text);
}

/** As tailscaled writes it: bigints are written as numbers, beyond JavaScript's precision. */
export function statusText(fake: Pick<FakeLocalApi, 'peers' | 'status'>, withPeers = true): string {
  const peers = (withPeers ? fake.peers : []).map((peer, index) => [`nodekey:${index}`, fakePeer(index + 2, peer)]);
  return write({
    Version: '1.98.10-t0123456',
    TUN: true,
    BackendState: 'Running',
    Self: fakePeer(1, { HostName: 'self', DNSName: 'self.tailnet.test.' }),
    MagicDNSSuffix: 'tailnet.test',
    CurrentTailnet: { Name: 'tailnet.test', MagicDNSSuffix: 'tailnet.test', MagicDNSEnabled: true },
    Peer: withPeers ? Object.fromEntries(peers) : null,
    User: { [String(ADA)]: { ID: ADA, LoginName: 'ada@example.com', DisplayName: 'Ada' } },
    ...fake.status,
  });
}

/** Two user ids of Tailscale that round to the same double. */
export const ADA = 9_007_199_254_740_993n;
export const EVE = 9_007_199_254_740_992n;

export function fakePeer(number: number, peer: FakePeer): FakePeer {
  const [high, low] = [number >> 8, number & 255];
  return {
    ID: `n${number}CNTRL`,
    HostName: `host${number}`,
    DNSName: `host${number}.tailnet.test.`,
    OS: 'linux',
    UserID: ADA,
    TailscaleIPs: [`100.64.${high}.${low}`, `fd7a:115c:a1e0::${number.toString(16)}`],
    Addrs: ['192.0.2.1:41641'],
    CurAddr: '',
    Relay: 'fra',
    Created: '2026-01-01T00:00:00Z',
    LastSeen: '0001-01-01T00:00:00Z',
    Online: true,
    ExitNode: false,
    ExitNodeOption: false,
    Capabilities: ['https://tailscale.com/cap/file-sharing'],
    CapMap: { 'https://tailscale.com/cap/file-sharing': null },
    InNetworkMap: true,
    ...peer,
  };
}

const BIGINT = /"bigint:(-?\d+)"/g;

/** JSON, bigints as numbers. */
export function write(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? `bigint:${inner}` : inner)).replace(
    BIGINT,
    '$1',
  );
}
