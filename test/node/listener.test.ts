import { once } from 'node:events';
import { connect } from 'node:net';

import { describe, expect, test } from 'vitest';

import { AWAY_POLL_MS, POLL_MS, MIN_READ_INTERVAL_MS } from '../../src/node/tailnet-view.ts';
import { LocalApiError } from '../../src/tailscale/types.ts';
import { settle } from '../fleet/manual-clock.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { until } from '../rig/wait.ts';
import { type NodeStage, openClockedStage, openNodeStage, SELF } from './stage.ts';

const OTHER = '127.0.0.9';

async function accepts(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port });
  const isConnected = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return isConnected;
}

describe('the node service listens', () => {
  test('on its tailnet addresses only', async () => {
    await using stage = await openNodeStage();
    expect(await accepts(SELF, stage.port)).toBe(true);
    expect(await accepts('127.0.0.1', stage.port)).toBe(false);
    expect(await accepts('127.0.0.7', stage.port)).toBe(false);
  });

  test('on loopback only with userspace networking', async () => {
    await using stage = await openNodeStage({ tun: false });
    expect(stage.service.addresses).toEqual(['127.0.0.1']);
    expect(await accepts('127.0.0.1', stage.port)).toBe(true);
    expect(await accepts(SELF, stage.port)).toBe(false);
  });

  test('on new IPv4 and IPv6 addresses, and closes connections to the old ones', async () => {
    await using stage = await openClockedStage();
    const { socket } = await stage.open();
    await stage.change({ self: tailnetNode({ id: 'self', addresses: ['::1', OTHER] }) });
    await until('the new addresses', () => stage.service.addresses.length === 2);
    expect(stage.service.addresses).toEqual(['::1', OTHER]);
    await until('the old connection to be cut', () => socket.closed);
    expect(await accepts(SELF, stage.port)).toBe(false);
    expect(await accepts(OTHER, stage.port)).toBe(true);
    expect(await accepts('::1', stage.port)).toBe(true);
  });

  const logsReason = (stage: NodeStage, part: string): Promise<unknown> =>
    until(`a reason with ${part} to be logged`, () =>
      stage.log.some(({ fields }) => String(fields['reason']).includes(part)),
    );

  test('once the machine has the address that tailscaled reports', async () => {
    await using stage = await openClockedStage();
    // No machine has 192.0.2.1 (RFC 5737).
    await stage.change({ self: tailnetNode({ id: 'self', addresses: ['192.0.2.1', SELF] }) });
    await logsReason(stage, 'does not have this address yet');
    expect(stage.service.addresses).toEqual([SELF]);
  });

  test('once the port is free', async () => {
    await using stage = await openClockedStage();
    const portOccupier = await listenHttp(() => {}, stage.port);
    await stage.change({ tun: false });
    await logsReason(stage, 'OPENCODE_NODE_PORT');
    await portOccupier.close();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    await until('the port', () => stage.service.addresses.includes('127.0.0.1'));
  });
});

describe('the node service stops listening and closes all connections', () => {
  test.each<[string, (stage: NodeStage) => void]>([
    ['logged out', ({ api }) => api.set({ backendState: 'NeedsLogin', self: undefined })],
    ['stopped', ({ api }) => api.set({ backendState: 'Stopped' })],
    ['without an address', ({ api }) => api.set({ self: tailnetNode({ id: 'self' }) })],
    ['not running', ({ api }) => api.fail(new LocalApiError('missing', 'no socket'))],
    ['not accessible', ({ api }) => api.fail(new LocalApiError('denied', 'EACCES'))],
  ])('while tailscaled is %s, and polls every two seconds until it returns', async (_, makeUnavailable) => {
    await using stage = await openClockedStage();
    const { socket } = await stage.open();
    const status = stage.api.status_;
    makeUnavailable(stage);
    await stage.clock.advance(2 * MIN_READ_INTERVAL_MS);
    await until('the service to release its addresses', () => stage.service.addresses.length === 0);
    expect(await accepts(SELF, stage.port)).toBe(false);
    await until('the connection to be cut', () => socket.closed);
    // Without a notification: the bus is silent while tailscaled is not running.
    stage.api.failure = undefined;
    stage.api.status_ = status;
    const { looks } = stage.api;
    await stage.clock.advance(AWAY_POLL_MS);
    expect(stage.api.looks).toBe(looks + 1);
    await until('the address', () => stage.service.addresses.includes(SELF));
    expect((await stage.list()).instances.length).toBe(1);
  });

  test('with userspace networking too while tailscaled has no address, by which it recognizes itself', async () => {
    await using stage = await openClockedStage({ tun: false });
    await stage.change({ self: tailnetNode({ id: 'self' }) });
    await until('the service to release its address', () => stage.service.addresses.length === 0);
    expect(await accepts('127.0.0.1', stage.port)).toBe(false);
  });

  test('but not after slow or malformed answers, which are logged once', async () => {
    await using stage = await openClockedStage();
    const looks = stage.api.looks;
    stage.api.fail(new LocalApiError('failed', 'truncated'));
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    expect(stage.api.looks).toBeGreaterThan(looks);
    expect(stage.service.addresses).toEqual([SELF]);
    stage.api.notify();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    expect(stage.api.looks).toBeGreaterThan(looks + 1);
    expect(stage.log.filter(({ fields }) => fields['reason'] === 'truncated')).toHaveLength(1);
    // Meanwhile whois fails too, so the service admits nobody.
    expect(await stage.ask('/session')).toMatchObject({
      status: 503,
      text: expect.stringMatching(/^truncated; access denied/),
    });
    stage.api.fail(undefined);
    expect((await stage.ask('/session')).status).toBe(200);
  });
});

describe('the status of tailscaled is read', () => {
  test('after each change on the bus, at most once per second, and at least every 30 seconds', async () => {
    await using stage = await openClockedStage();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    const { looks } = stage.api;
    await stage.clock.advance(POLL_MS);
    expect(stage.api.looks).toBe(looks + 1);
    for (let count = 0; count < 100; count += 1) stage.api.notify();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    expect(stage.api.looks).toBe(looks + 2);
  });

  test('soon after a failed whois, even if the bus is silent', async () => {
    await using stage = await openClockedStage();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    stage.api.failure = new LocalApiError('missing', 'no socket');
    expect((await stage.ask('/session')).status).toBe(503);
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    expect(stage.service.addresses).toEqual([]);
  });

  test('for a caller that is not a known peer yet, while its requests wait', async () => {
    await using stage = await openClockedStage();
    stage.api.notify();
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    const newcomer = tailnetNode({ id: 'newcomer', addresses: ['127.0.0.6'] });
    stage.api.status_ = { ...stage.api.status_, peers: [...stage.api.status_.peers, newcomer] };
    stage.api.callers.set('127.0.0.6', whoisOf(newcomer));
    const { looks } = stage.api;
    const whoisCallsBefore = stage.api.asked.length;
    const responses = Promise.all(['/session', '/config'].map((path) => stage.ask(path, { from: '127.0.0.6' })));
    await until('both whois calls', () => stage.api.asked.length === whoisCallsBefore + 2);
    await settle();
    expect(stage.api.looks).toBe(looks);
    await stage.clock.advance(MIN_READ_INTERVAL_MS);
    expect((await responses).map(({ status }) => status)).toEqual([200, 200]);
    expect(stage.api.looks).toBe(looks + 1);
  });
});
