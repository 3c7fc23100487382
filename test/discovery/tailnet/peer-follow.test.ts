import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { describe, expect, it, onTestFinished } from 'vitest';

import { FOLLOW_PACE_MS, HOLD_MS, MAX_FOLLOWED } from '../../../src/discovery/tailnet/peer-table.ts';
import { settle } from '../../fleet/manual-clock.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { until } from '../../rig/wait.ts';
import { listed, listing } from '../tailscale-stage.ts';
import { peerTable } from './peer-table-stage.ts';

/** The node service that answers for every peer. */
interface Service {
  ids: readonly string[];
  /** `no`: sends no entity tags; `refuses`: sends a tag but never holds; `all`: holds every request. */
  holds: 'yes' | 'no' | 'refuses' | 'all';
  /** An entity tag to send instead of the right one. */
  etag?: string;
  status: number;
  /** The headers of each request. */
  readonly requestHeaders: IncomingMessage['headers'][];
  /** The responses of held requests. */
  readonly held: Set<ServerResponse>;
}

type Stage = Awaited<ReturnType<typeof openStage>>;

async function openStage({ peers = 1, ...overrides }: Partial<Service> & { readonly peers?: number } = {}) {
  const service: Service = { ids: ['a'], holds: 'yes', status: 200, requestHeaders: [], held: new Set(), ...overrides };
  const listener = await listenHttp((request, response) => answer(service, request, response));
  onTestFinished(() => listener.close());
  const stage = peerTable(listener.port, peers);
  return {
    ...stage,
    service,
    /** Ids of the table's candidates. */
    ids: () => stage.table.found.candidates.map(({ claims }) => claims.id),
    /** Changes the list and answers held requests. */
    setList(...ids: readonly string[]): void {
      service.ids = ids;
      for (const response of service.held) send(service, response);
      service.held.clear();
    },
  };
}

async function openFollowingStage(options: Parameters<typeof openStage>[0] = {}): Promise<Stage> {
  const stage = await openStage(options);
  await stage.follow();
  return stage;
}

describe('a table that follows its peers', () => {
  const isHeld = ({ service }: Stage, count = 1): Promise<true> =>
    until('a request to be held', () => service.held.size === count);

  it('holds one request at each peer, and gets changes at once', async () => {
    const stage = await openFollowingStage();
    await isHeld(stage);
    expect(stage.ids()).toEqual(['a']);
    for (const ids of [['a', 'b'], []]) {
      const before = stage.changes();
      stage.setList(...ids);
      await until('the change', () => stage.changes() > before);
      expect(stage.ids()).toEqual(ids);
      await stage.clock.advance(FOLLOW_PACE_MS);
      await isHeld(stage);
    }
    // The first request has no entity tag yet, so the service cannot hold it.
    const waits = stage.service.requestHeaders.map(({ prefer }) => prefer);
    expect(waits).toEqual([undefined, 'wait=25', 'wait=25', 'wait=25']);
  });

  it('reports only real changes', async () => {
    const { table, service, sites, changes } = await openStage({ holds: 'no' });
    table.keep(sites);
    for (let round = 1; round <= 3; round += 1) {
      await table.ask();
      expect([service.requestHeaders.length, changes()]).toEqual([round, 1]);
    }
    service.ids = ['b'];
    await table.ask();
    expect(changes()).toBe(2);
    service.status = 500;
    await table.ask();
    // An error answer is a change too, but only once.
    expect(changes()).toBe(3);
    await table.ask({ thorough: true });
    expect(changes()).toBe(3);
  });

  it.each(['no', 'refuses'] as const)(
    'asks a service that does not hold requests at most once a second: %s',
    async (holds) => {
      const { service, clock } = await openFollowingStage({ holds });
      for (let count = 2; count <= 5; count += 1) {
        await until('the answer', () => clock.due(FOLLOW_PACE_MS) === 1);
        await clock.advance(FOLLOW_PACE_MS - 1);
        expect(service.requestHeaders.length).toBe(count);
        await clock.advance(1);
        await until('the next request', () => service.requestHeaders.length === count + 1);
      }
    },
  );

  it('counts a miss when a held request times out, and keeps the candidates', async () => {
    const stage = await openFollowingStage();
    await isHeld(stage);
    await stage.clock.advance(HOLD_MS);
    expect(stage.service.requestHeaders).toHaveLength(2);
    await stage.clock.advance(3000);
    expect(stage.ids()).toEqual(['a']);
    // The next request is answered at once, to find out soon whether the peer is up.
    await stage.clock.advance(FOLLOW_PACE_MS);
    await until('the next request', () => stage.service.requestHeaders.length === 3);
    expect(stage.service.requestHeaders[2]).not.toHaveProperty('prefer');
  });

  it('drops the candidates when access is revoked, and finds them within half a minute of a grant', async () => {
    const stage = await openFollowingStage();
    await isHeld(stage);
    stage.service.status = 403;
    stage.setList('a');
    await until('the refusal', () => stage.changes() === 2);
    expect(stage.ids()).toEqual([]);
    for (let round = 0; round < 6; round += 1) {
      const before = stage.service.requestHeaders.length;
      await stage.clock.advance(30_000);
      await until('the next request', () => stage.service.requestHeaders.length > before);
    }
    stage.service.status = 200;
    await until('the list', async () => {
      await stage.clock.advance(30_000);
      return stage.ids().length > 0;
    });
  });

  it('asks a service that does not admit this machine after growing pauses of at most half a minute', async () => {
    const { table, sites, clock, service } = await openStage({ status: 403 });
    table.keep(sites);
    const requestsAfter = async (ms: number): Promise<number> => {
      const before = service.requestHeaders.length;
      await clock.advance(ms);
      await table.ask();
      return service.requestHeaders.length - before;
    };
    expect([await requestsAfter(0), await requestsAfter(4999), await requestsAfter(1)]).toEqual([1, 0, 1]);
    for (let round = 0; round < 5; round += 1) expect(await requestsAfter(30_000)).toBe(1);
    expect([await requestsAfter(29_999), await requestsAfter(1)]).toEqual([0, 1]);
  });

  it('follows a peer again immediately if a scan finds that access was granted', async () => {
    const stage = await openFollowingStage({ status: 403 });
    for (let round = 0; round < 5; round += 1) {
      const before = stage.service.requestHeaders.length;
      await stage.clock.advance(30_000);
      await until('the next request', () => stage.service.requestHeaders.length > before);
    }
    stage.service.status = 200;
    await stage.table.ask({ thorough: true });
    expect(stage.ids()).toEqual(['a']);
    await stage.clock.advance(FOLLOW_PACE_MS);
    await isHeld(stage);
  });

  it('asks only peers without a held request in a scan, unless the scan is thorough', async () => {
    const stage = await openFollowingStage();
    await isHeld(stage);
    await stage.table.ask();
    expect(stage.service.requestHeaders).toHaveLength(2);
    const [held] = stage.service.held;
    await stage.table.ask({ thorough: true });
    expect(stage.service.requestHeaders).toHaveLength(3);
    await until('the held request to be aborted', () => held?.destroyed === true);
    await stage.clock.advance(FOLLOW_PACE_MS);
    await isHeld(stage);
  });

  it('asks a peer again when it comes online', async () => {
    const stage = await openFollowingStage();
    await isHeld(stage);
    const site = stage.sites[0]!;
    const [held] = stage.service.held;
    stage.table.keep([{ ...site, node: { ...site.node, online: false } }]);
    expect(held?.destroyed).toBe(false);
    stage.table.keep([site]);
    await until('the held request to be aborted', () => held?.destroyed === true);
    await stage.clock.advance(FOLLOW_PACE_MS);
    await until('the next request', () => stage.service.requestHeaders.length === 3);
    // The service must not hold this request, because the peer may be down.
    expect(stage.service.requestHeaders[2]).not.toHaveProperty('prefer');
  });

  it('ends the request of a removed peer, and all requests when it stops following or is closed', async () => {
    const stage = await openFollowingStage({ peers: 3 });
    await isHeld(stage, 3);
    stage.table.keep(stage.sites.slice(1));
    await until('one request to end', () => stage.service.held.size === 2);
    await stage.table.unfollow();
    await until('all requests to end', () => stage.service.held.size === 0);
    await stage.clock.advance(2 * HOLD_MS);
    const { length } = stage.service.requestHeaders;
    stage.table.follow();
    await isHeld(stage, 2);
    await stage.table.close();
    await until('all requests to end', () => stage.service.held.size === 0);
    expect(stage.service.requestHeaders).toHaveLength(length + 2);
    expect(stage.clock.due()).toBe(0);
  });

  it('does not follow a peer that was removed before it answered', async () => {
    const stage = await openStage({ holds: 'all' });
    stage.table.keep(stage.sites);
    stage.table.follow();
    const asking = stage.table.ask();
    await isHeld(stage);
    stage.table.keep([]);
    stage.setList('a');
    await asking;
    await stage.clock.advance(FOLLOW_PACE_MS);
    expect([stage.service.held.size, stage.service.requestHeaders.length, stage.changes()]).toEqual([0, 1, 0]);
    expect(stage.clock.due()).toBe(0);
  });

  it('limits the number of held requests', async () => {
    const stage = await openFollowingStage({ peers: MAX_FOLLOWED + 20 });
    await isHeld(stage, MAX_FOLLOWED);
    await stage.clock.advance(2 * FOLLOW_PACE_MS);
    expect(stage.service.held.size).toBe(MAX_FOLLOWED);
    expect(stage.ids()).toHaveLength(MAX_FOLLOWED + 20);
    const before = stage.service.requestHeaders.length;
    await stage.table.ask();
    // The scan asks the peers that are not followed.
    expect(stage.service.requestHeaders.length - before).toBe(20);
  });

  it('follows only some of the peers that do not admit this machine', async () => {
    const { service, clock } = await openFollowingStage({ peers: 40, status: 403 });
    await clock.advance(5000);
    await until('the requests', () => service.requestHeaders.length >= 40 + 32);
    await settle();
    expect(service.requestHeaders).toHaveLength(40 + 32);
  });

  it('asks at most sixteen peers at the same time', async () => {
    const { table, sites } = peerTable(1, 40);
    let open = 0;
    const dial = (): Promise<never> => {
      open += 1;
      return new Promise(() => {});
    };
    table.keep(sites.map((site) => ({ ...site, dial })));
    void table.ask();
    await until('sixteen requests', () => open === 16);
    await settle();
    expect(open).toBe(16);
  });

  it('asks at most 256 peers without a service in one scan; a thorough scan includes peers that are not due', async () => {
    const { table, sites } = peerTable(1, 300);
    const dialled: string[] = [];
    const dialAndFail = (id: string): Promise<never> => {
      dialled.push(id);
      return Promise.reject(new Error('connection refused'));
    };
    table.keep(sites.map((site) => ({ ...site, dial: () => dialAndFail(site.node.id) })));
    for (const count of [256, 300, 300]) {
      await table.ask();
      expect(dialled).toHaveLength(count);
    }
    expect(new Set(dialled).size).toBe(300);
    await table.ask({ thorough: true });
    expect(dialled).toHaveLength(300 + 256);
  });

  it.each(['a b', '"', '"a"b', '"\u00e9"', `"${'x'.repeat(200)}"`])(
    'does not send back an invalid entity tag: %j',
    async (etag) => {
      const { service, ids } = await openFollowingStage({ holds: 'refuses', etag });
      await until('the next request', () => service.requestHeaders.length === 2);
      expect(service.requestHeaders.map((headers) => headers['if-none-match'])).toEqual([undefined, undefined]);
      expect(ids()).toEqual(['a']);
    },
  );

  it('treats 304 without a known list as no answer', async () => {
    const stage = await openFollowingStage({ status: 304 });
    expect(stage.ids()).toEqual([]);
    expect(stage.table.found.notes[0]?.reason).toContain('HTTP 304');
  });
});

function answer(service: Service, { headers }: IncomingMessage, response: ServerResponse): void {
  service.requestHeaders.push(headers);
  const isKnown = service.holds !== 'no' && headers['if-none-match'] === tagOf(service);
  const isHeld = isKnown && service.status === 200 && headers['prefer'] !== undefined && service.holds === 'yes';
  if (isHeld || service.holds === 'all') {
    service.held.add(response);
    response.once('close', () => service.held.delete(response));
  } else if (isKnown && service.status === 200) response.writeHead(304).end();
  else send(service, response);
}

function send(service: Service, response: ServerResponse): void {
  response.writeHead(service.status, service.holds === 'no' ? {} : { etag: service.etag ?? tagOf(service) });
  response.end(service.status === 304 ? undefined : JSON.stringify(listing(...service.ids.map((id) => listed(id)))));
}

function tagOf({ ids }: Service): string {
  return `"${createHash('sha256').update(ids.join()).digest('base64url')}"`;
}
