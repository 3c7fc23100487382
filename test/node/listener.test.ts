import { connect } from 'node:net';

import { describe, expect, test } from 'vitest';

import { AWAY_POLL_MS, POLL_MS, SHORTEST_LOOK_MS } from '../../src/node/tailnet-view.ts';
import { LocalApiError } from '../../src/tailscale/types.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { until } from '../rig/wait.ts';
import { openNodeStage, SELF, type NodeStage } from './stage.ts';

const OTHER = '127.0.0.9';

function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

const nowhere = async (stage: NodeStage): Promise<void> => {
  await until('nothing to be listened on', () => stage.service.addresses.length === 0);
  expect(await accepts(SELF, stage.port)).toBe(false);
};

describe('it listens', () => {
  test('on the tailnet’s addresses and on nothing else', async () => {
    await using stage = await openNodeStage();
    expect(await accepts(SELF, stage.port)).toBe(true);
    expect(await accepts('127.0.0.1', stage.port)).toBe(false);
    expect(await accepts('127.0.0.7', stage.port)).toBe(false);
  });

  test('on loopback alone with userspace networking', async () => {
    await using stage = await openNodeStage({ tun: false });
    expect(stage.service.addresses).toEqual(['127.0.0.1']);
    expect(await accepts('127.0.0.1', stage.port)).toBe(true);
    expect(await accepts(SELF, stage.port)).toBe(false);
  });

  test('on new addresses, and cuts connections to the old ones', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const before = await stage.connect();
    stage.api.set({ self: tailnetNode({ id: 'self', addresses: [OTHER] }) });
    await clock.advance(SHORTEST_LOOK_MS);
    await until('the new address', () => stage.service.addresses.includes(OTHER));
    expect(stage.service.addresses).toEqual([OTHER]);
    await until('the old connection to be cut', () => before.closed);
    expect(await accepts(SELF, stage.port)).toBe(false);
    expect(await accepts(OTHER, stage.port)).toBe(true);
  });

  test('on an address of both families', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    stage.api.set({ self: tailnetNode({ id: 'self', addresses: ['::1', SELF] }) });
    await clock.advance(SHORTEST_LOOK_MS);
    await until('both', () => stage.service.addresses.length === 2);
    expect(await accepts('::1', stage.port)).toBe(true);
  });

  test('once the machine has the address that tailscaled reports', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    // 192.0.2.0/24 is nobody's (RFC 5737).
    stage.api.set({ self: tailnetNode({ id: 'self', addresses: ['192.0.2.1', SELF] }) });
    await clock.advance(SHORTEST_LOOK_MS);
    await until('a word about it', () =>
      stage.log.some(({ fields }) => String(fields['reason']).includes('does not have this address yet')),
    );
    expect(stage.service.addresses).toEqual([SELF]);
  });

  test('once the port is free', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const taken = await listenHttp(() => {}, stage.port);
    stage.api.set({ tun: false });
    await clock.advance(SHORTEST_LOOK_MS);
    await until('a word about it', () =>
      stage.log.some(({ fields }) => String(fields['reason']).includes('OPENCODE_NODE_PORT')),
    );
    await taken.close();
    await clock.advance(SHORTEST_LOOK_MS);
    await until('the port', () => stage.service.addresses.includes('127.0.0.1'));
  });
});

describe('it stops listening and cuts everyone', () => {
  test.each<[string, (stage: NodeStage) => void]>([
    ['logged out', ({ api }) => api.set({ backendState: 'NeedsLogin', self: undefined })],
    ['stopped', ({ api }) => api.set({ backendState: 'Stopped' })],
    ['without an address', ({ api }) => api.set({ self: tailnetNode({ id: 'self' }) })],
    ['tailscaled gone', ({ api }) => api.fail(new LocalApiError('missing', 'no socket'))],
    ['the socket closed to us', ({ api }) => api.fail(new LocalApiError('denied', 'EACCES'))],
  ])('when %s, and comes back by itself', async (_, end) => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const open = await stage.connect();
    const status = stage.api.status_;
    end(stage);
    await clock.advance(SHORTEST_LOOK_MS);
    await nowhere(stage);
    await until('the connection to be cut', () => open.closed);
    stage.api.fail(undefined);
    stage.api.set(status);
    await clock.advance(AWAY_POLL_MS);
    await until('the address', () => stage.service.addresses.includes(SELF));
    expect((await stage.list()).instances.length).toBe(1);
  });

  test('without an address of its own with userspace networking too, where it could not tell itself from others', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ tun: false, clock });
    stage.api.set({ self: tailnetNode({ id: 'self' }) });
    await clock.advance(SHORTEST_LOOK_MS);
    await until('nothing to be listened on', () => stage.service.addresses.length === 0);
    expect(await accepts('127.0.0.1', stage.port)).toBe(false);
  });

  test('but not after one slow or malformed status', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const looks = stage.api.looks;
    stage.api.fail(new LocalApiError('failed', 'truncated'));
    await clock.advance(SHORTEST_LOOK_MS);
    expect(stage.api.looks).toBeGreaterThan(looks);
    expect(stage.service.addresses).toEqual([SELF]);
    // Whois fails as well, so nobody is admitted meanwhile.
    expect(await stage.ask('/session')).toMatchObject({
      status: 503,
      text: expect.stringMatching(/^truncated; access denied/),
    });
    stage.api.fail(undefined);
    expect((await stage.ask('/session')).status).toBe(200);
  });
});

describe('the status of tailscaled is read', () => {
  test('on a change of the bus, at most once a second, and every half minute anyway', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    await clock.advance(SHORTEST_LOOK_MS);
    const { looks } = stage.api;
    await clock.advance(POLL_MS);
    expect(stage.api.looks).toBe(looks + 1);
    for (let count = 0; count < 100; count += 1) stage.api.notify();
    await clock.advance(SHORTEST_LOOK_MS);
    expect(stage.api.looks).toBe(looks + 2);
  });

  test('soon after a failed whois, though the bus is silent', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    await clock.advance(SHORTEST_LOOK_MS);
    stage.api.failure = new LocalApiError('missing', 'no socket');
    expect((await stage.ask('/session')).status).toBe(503);
    await clock.advance(SHORTEST_LOOK_MS);
    expect(stage.service.addresses).toEqual([]);
  });

  test('for a caller who is not a known peer yet, whose request waits for it', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    stage.api.notify();
    await clock.advance(SHORTEST_LOOK_MS);
    const newcomer = tailnetNode({ id: 'newcomer', addresses: ['127.0.0.6'] });
    stage.api.status_ = { ...stage.api.status_, peers: [...stage.api.status_.peers, newcomer] };
    stage.api.callers.set('127.0.0.6', whoisOf(newcomer));
    const { looks } = stage.api;
    const asked = stage.api.asked.length;
    const both = Promise.all(['/session', '/config'].map((path) => stage.ask(path, { from: '127.0.0.6' })));
    await until('who they are to be asked', () => stage.api.asked.length === asked + 2);
    await settle();
    expect(stage.api.looks).toBe(looks);
    await clock.advance(SHORTEST_LOOK_MS);
    expect((await both).map(({ status }) => status)).toEqual([200, 200]);
    expect(stage.api.looks).toBe(looks + 1);
  });

  test('every two seconds while tailscaled is away', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    stage.api.fail(new LocalApiError('missing', 'no socket'));
    await clock.advance(2 * SHORTEST_LOOK_MS);
    await nowhere(stage);
    const { looks } = stage.api;
    await clock.advance(AWAY_POLL_MS);
    expect(stage.api.looks).toBe(looks + 1);
  });
});
