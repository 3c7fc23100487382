import type { RequestListener } from 'node:http';

import type { TailnetSettings } from '../../src/config/settings.ts';
import type { Clock } from '../../src/base/clock.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createTailscaleSource, type TailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type FakeLocalApi, type FakePeer, json, startFakeLocalApi } from '../rig/fake/fake-local-api.ts';
import { type HttpListener, listenHttp } from '../rig/http-listener.ts';

/** The answer of a fake peer on one of its ports: a JSON value, or a handler. */
export type PeerServer = RequestListener | Readonly<Record<string, unknown>>;

export interface TailnetStageOptions {
  readonly peers?: readonly FakePeer[];
  /** The servers of the peers, by `address:port`. */
  readonly servers?: Readonly<Record<string, PeerServer>>;
  readonly status?: Readonly<Record<string, unknown>>;
  readonly options?: Partial<TailnetSettings>;
  readonly clock?: Clock;
}

export interface TailnetStage extends AsyncDisposable {
  readonly fake: FakeLocalApi;
  readonly source: TailscaleSource;
  /** `METHOD address:port/path` of every request to a peer. */
  readonly requests: string[];
  /** Replaces or removes the answer at `address:port`. */
  serve(place: string, server: PeerServer | undefined): Promise<void>;
}

/** A source over a tailnet without a TUN, whose peers are loopback servers that tailscaled dials. */
export async function tailnetStage(stageOptions: TailnetStageOptions = {}): Promise<TailnetStage> {
  const listeners = new Map<string, HttpListener>();
  const requests: string[] = [];
  const fake = await startFakeLocalApi({
    peers: stageOptions.peers ?? [],
    status: { TUN: false, ...stageOptions.status },
    dial: (host, port) => listeners.get(`${host}:${port}`)?.port,
  });
  const serve = async (place: string, server: PeerServer | undefined): Promise<void> => {
    await listeners.get(place)?.close();
    listeners.delete(place);
    if (server === undefined) return;
    const handler = handlerOf(server);
    const listener = await listenHttp((request, response) => {
      requests.push(`${request.method} ${place}${request.url}`);
      handler(request, response);
    });
    listeners.set(place, listener);
  };
  for (const [place, server] of Object.entries(stageOptions.servers ?? {})) await serve(place, server);
  const source = createTailscaleSource(
    { socketPath: fake.socketPath, nodePort: 4095, ports: [4096], tags: [], users: [], ...stageOptions.options },
    { clock: stageOptions.clock ?? systemClock, logger: silentLogger },
  );
  return {
    fake,
    source,
    requests,
    serve,
    [Symbol.asyncDispose]: async () => {
      await source.close();
      await Promise.all([...listeners.values()].map((listener) => listener.close()));
      await fake.close();
    },
  };
}

/** A node service's answer to a list request. */
export function listing(...instances: readonly unknown[]): Readonly<Record<string, unknown>> {
  return { protocol: 1, node: { id: 'x', name: 'x', host: 'x' }, instances };
}

export function listed(id: string, more: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return {
    id,
    name: `name of ${id}`,
    host: 'h',
    directory: '/srv',
    version: '1.18.33',
    port: 5000,
    path: '/',
    ...more,
  };
}

export const HEALTH = { healthy: true, version: '1.18.33' };

function handlerOf(server: PeerServer): RequestListener {
  return typeof server === 'function' ? server : (_, response) => json(response, JSON.stringify(server));
}
