import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { afterEach, describe, expect, it } from 'vitest';

import { FOLLOW_PACE_MS, HOLD_MS, MAX_FOLLOWED, PeerTable } from '../../src/discovery/tailnet/peer-table.ts';
import type { PeerSite } from '../../src/discovery/tailnet/peer.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { type HttpListener, listenHttp } from '../rig/http-listener.ts';
import { tailnetNode } from '../rig/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import { listed, listing } from './tailscale-stage.ts';

/** The behaviour of the fake node services. */
interface Service {
  ids: readonly string[];
  /** `no`: no entity tags; `lies`: sends a tag but never holds; `all`: holds every request. */
  holds: 'yes' | 'no' | 'lies' | 'all';
  status: number;
  /** The `prefer` header of each request. */
  readonly asked: (string | undefined)[];
  /** Held requests. */
  readonly held: Set<ServerResponse>;
}

interface Stage {
  readonly table: PeerTable;
  readonly clock: ManualClock;
  readonly service: Service;
  readonly changes: () => number;
  /** Ids of the table's candidates. */
  readonly ids: () => readonly (string | undefined)[];
  /** Changes the list and answers held requests. */
  list(...ids: readonly string[]): void;
  readonly sites: readonly PeerSite[];
}

describe('a following table', () => {
  const open: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const one of open.splice(0).toReversed()) await one.close();
  });

  /** All peers have the same node service. */
  async function enter({ peers = 1, ...given }: Partial<Service> & { readonly peers?: number } = {}): Promise<Stage> {
    const service: Service = { ids: ['a'], holds: 'yes', status: 200, asked: [], held: new Set(), ...given };
    const listener = await listenHttp((request, response) => answer(service, request, response));
    open.push(listener);
    return stageOf(service, listener, peers);
  }

  function stageOf(service: Service, { port }: HttpListener, peers: number): Stage {
    const clock = new ManualClock();
    let changes = 0;
    const table = new PeerTable({ nodePort: port, ports: [], clock, onChange: () => void (changes += 1) });
    open.push({
      async close() {
        await table.close();
        for (const response of service.held) response.destroy();
      },
    });
    const sites = Array.from({ length: peers }, (_, index) => ({
      node: tailnetNode({ id: `peer${index}` }),
      address: '127.0.0.1',
      dial: undefined,
    }));
    return {
      table,
      clock,
      service,
      sites,
      changes: () => changes,
      ids: () => table.found.candidates.map(({ claims }) => claims.id),
      list(...ids) {
        service.ids = ids;
        for (const response of service.held) send(service, response);
        service.held.clear();
      },
    };
  }

  async function following(given: Parameters<typeof enter>[0] = {}): Promise<Stage> {
    const stage = await enter(given);
    stage.table.keep(stage.sites);
    stage.table.follow();
    await stage.table.ask();
    return stage;
  }

  const isHeld = ({ service }: Stage, count = 1): Promise<true> =>
    until('a request to be held', () => service.held.size === count);

  it('holds one request at each peer, and gets changes at once', async () => {
    const stage = await following();
    await isHeld(stage);
    expect(stage.ids()).toEqual(['a']);
    for (const ids of [['a', 'b'], []]) {
      const before = stage.changes();
      stage.list(...ids);
      await until('the change', () => stage.changes() > before);
      expect(stage.ids()).toEqual(ids);
      await stage.clock.advance(FOLLOW_PACE_MS);
      await isHeld(stage);
    }
    // One each time, and the first, which could not be held.
    expect(stage.service.asked).toEqual([undefined, 'wait=25', 'wait=25', 'wait=25']);
  });

  it('reports only real changes', async () => {
    const { table, service, sites, changes } = await enter({ holds: 'no' });
    table.keep(sites);
    for (let asks = 1; asks <= 3; asks += 1) {
      await table.ask();
      expect([service.asked.length, changes()]).toEqual([asks, 1]);
    }
    service.ids = ['b'];
    await table.ask();
    expect(changes()).toBe(2);
    service.status = 500;
    await table.ask();
    // An invalid list is news too, but only once.
    expect(changes()).toBe(3);
    await table.ask({ thorough: true });
    expect(changes()).toBe(3);
  });

  it('keeps its list after 304, and asks again', async () => {
    const stage = await following();
    await isHeld(stage);
    for (const response of stage.service.held) response.writeHead(304).end();
    stage.service.held.clear();
    await until('the end of the request', async () => {
      await stage.clock.advance(FOLLOW_PACE_MS);
      return stage.service.held.size === 1;
    });
    expect(stage.ids()).toEqual(['a']);
    expect(stage.changes()).toBe(1);
  });

  it.each(['no', 'lies'] as const)('asks a service that does not hold once a second at most: %s', async (holds) => {
    const { service, clock } = await following({ holds });
    // The first request, and those from then on.
    for (let asked = 2; asked <= 5; asked += 1) {
      await until('its answer', () => clock.due(FOLLOW_PACE_MS) === 1);
      await clock.advance(FOLLOW_PACE_MS - 1);
      expect(service.asked.length).toBe(asked);
      await clock.advance(1);
      await until('the next request', () => service.asked.length === asked + 1);
    }
  });

  it('counts a miss when a held request times out, and keeps the candidates', async () => {
    const stage = await following();
    await isHeld(stage);
    await stage.clock.advance(HOLD_MS);
    expect(stage.service.asked).toHaveLength(2);
    await stage.clock.advance(3000);
    expect(stage.ids()).toEqual(['a']);
    // The next request is answered at once, to find out soon whether the peer is up.
    await stage.clock.advance(FOLLOW_PACE_MS);
    await until('it to be asked again', () => stage.service.asked.length === 3);
    expect(stage.service.asked[2]).toBeUndefined();
  });

  it('counts a miss when the connection breaks, and holds again once the service is back', async () => {
    const stage = await following();
    await isHeld(stage);
    for (const response of stage.service.held) response.destroy();
    stage.service.held.clear();
    await until('the next request to be held', async () => {
      await stage.clock.advance(FOLLOW_PACE_MS);
      return stage.service.held.size === 1;
    });
    expect(stage.ids()).toEqual(['a']);
    expect(stage.changes()).toBe(1);
  });

  it('drops the candidates when access is revoked, and finds them within half a minute of a grant', async () => {
    const stage = await following();
    await isHeld(stage);
    stage.service.status = 403;
    stage.list('a');
    await until('the refusal', () => stage.changes() === 2);
    expect(stage.ids()).toEqual([]);
    for (let minutes = 0; minutes < 20; minutes += 1) {
      const before = stage.service.asked.length;
      await stage.clock.advance(30_000);
      await until('it to be asked', () => stage.service.asked.length > before);
    }
    stage.service.status = 200;
    await until('the list', async () => {
      await stage.clock.advance(30_000);
      return stage.ids().length > 0;
    });
  });

  it('holds again at once if a scan finds that access was granted', async () => {
    const stage = await following({ status: 403 });
    for (let minutes = 0; minutes < 5; minutes += 1) {
      const before = stage.service.asked.length;
      await stage.clock.advance(30_000);
      await until('it to be asked', () => stage.service.asked.length > before);
    }
    stage.service.status = 200;
    await stage.table.ask({ thorough: true });
    expect(stage.ids()).toEqual(['a']);
    await stage.clock.advance(FOLLOW_PACE_MS);
    await isHeld(stage);
  });

  it('a scan asks only peers without a held request, unless it is thorough', async () => {
    const stage = await following();
    await isHeld(stage);
    await stage.table.ask();
    expect(stage.service.asked).toHaveLength(2);
    const [held] = stage.service.held;
    await stage.table.ask({ thorough: true });
    expect(stage.service.asked).toHaveLength(3);
    await until('the held one to be given up', () => held?.destroyed === true);
    stage.service.held.clear();
    await stage.clock.advance(FOLLOW_PACE_MS);
    await isHeld(stage);
  });

  it('asks a peer again when it comes online', async () => {
    const stage = await following();
    await isHeld(stage);
    const [site] = stage.sites;
    if (site === undefined) throw new Error('Expected a site');
    const [held] = stage.service.held;
    stage.table.keep([{ ...site, node: { ...site.node, online: false } }]);
    expect(held?.destroyed).toBe(false);
    stage.table.keep([site]);
    await until('the held one to be given up', () => held?.destroyed === true);
    await stage.clock.advance(FOLLOW_PACE_MS);
    await until('it to be asked', () => stage.service.asked.length === 3);
    // Not held, because the peer may be down.
    expect(stage.service.asked[2]).toBeUndefined();
  });

  it('ends the request of a removed peer, and all requests when nobody listens or it is closed', async () => {
    const stage = await following({ peers: 3 });
    await isHeld(stage, 3);
    stage.service.held.forEach((response) => response.once('close', () => stage.service.held.delete(response)));
    stage.table.keep(stage.sites.slice(1));
    await until('one to be let go', () => stage.service.held.size === 2);
    await stage.table.unfollow();
    await until('all to be let go', () => stage.service.held.size === 0);
    await stage.clock.advance(2 * HOLD_MS);
    const { length } = stage.service.asked;
    stage.table.follow();
    await isHeld(stage, 2);
    stage.service.held.forEach((response) => response.once('close', () => stage.service.held.delete(response)));
    await stage.table.close();
    await until('all to be let go', () => stage.service.held.size === 0);
    expect(stage.service.asked).toHaveLength(length + 2);
    expect(stage.clock.due()).toBe(0);
  });

  it('does not follow a peer that was removed before it answered', async () => {
    const stage = await enter({ holds: 'all' });
    stage.table.keep(stage.sites);
    stage.table.follow();
    const asking = stage.table.ask();
    await isHeld(stage);
    stage.table.keep([]);
    stage.list('a');
    await asking;
    await stage.clock.advance(FOLLOW_PACE_MS);
    expect([stage.service.held.size, stage.service.asked.length, stage.changes()]).toEqual([0, 1, 0]);
    expect(stage.clock.due()).toBe(0);
  });

  it('limits the number of held requests', async () => {
    const stage = await following({ peers: MAX_FOLLOWED + 20 });
    await isHeld(stage, MAX_FOLLOWED);
    await stage.clock.advance(2 * FOLLOW_PACE_MS);
    expect(stage.service.held.size).toBe(MAX_FOLLOWED);
    expect(stage.ids()).toHaveLength(MAX_FOLLOWED + 20);
    const before = stage.service.asked.length;
    await stage.table.ask();
    // The others are asked by the scan.
    expect(stage.service.asked.length - before).toBe(20);
  });

  it.each(['a b', '"', '"a"b', '"\u00e9"', `"${'x'.repeat(200)}"`])(
    'sends no entity tag back that is none: %j',
    async (etag) => {
      const service: Service = { ids: ['a'], holds: 'no', status: 200, asked: [], held: new Set() };
      const listener = await listenHttp((request, response) => {
        service.asked.push(request.headers['if-none-match']);
        response.setHeader('etag', etag);
        send(service, response);
      });
      open.push(listener);
      const stage = stageOf(service, listener, 1);
      stage.table.keep(stage.sites);
      await stage.table.ask();
      await stage.table.ask();
      expect(service.asked).toEqual([undefined, undefined]);
      expect(stage.ids()).toEqual(['a']);
    },
  );

  it('treats 304 without a known list as no answer', async () => {
    const stage = await following({ status: 304 });
    expect(stage.ids()).toEqual([]);
    expect(stage.table.found.notes[0]?.reason).toContain('HTTP 304');
  });
});

function answer(service: Service, request: IncomingMessage, response: ServerResponse): void {
  const prefer = request.headers['prefer'];
  service.asked.push(typeof prefer === 'string' ? prefer : undefined);
  const isKnown = service.holds !== 'no' && request.headers['if-none-match'] === tagOf(service);
  if (service.holds === 'all') service.held.add(response);
  else if (!isKnown || service.status !== 200) send(service, response);
  else if (prefer !== undefined && service.holds === 'yes') service.held.add(response);
  else response.writeHead(304).end();
}

function send(service: Service, response: ServerResponse): void {
  response.writeHead(service.status, service.holds === 'no' ? {} : { etag: tagOf(service) });
  response.end(service.status === 304 ? undefined : JSON.stringify(listing(...service.ids.map((id) => listed(id)))));
}

function tagOf({ ids }: Service): string {
  return `"${createHash('sha256').update(ids.join()).digest('base64url')}"`;
}
