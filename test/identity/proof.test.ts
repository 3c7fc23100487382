import { describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { isSameByAbort } from '../../src/identity/proof.ts';
import type { Connection } from '../../src/http/exchange.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { until } from '../rig/wait.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

async function fakeOpencode(options?: FakeOptions): Promise<FakeOpencode> {
  const fake = await startFakeOpencode(options);
  onTestFinished(fake.close);
  return fake;
}

async function tunnelTo(fake: FakeOpencode): Promise<FaultProxy> {
  const proxy = await startFaultProxy(fake.url);
  onTestFinished(proxy.close);
  return proxy;
}

const connectionTo = ({ url }: { readonly url: string }): Connection => ({ endpoint: { url, route: 'loopback' } });

describe('a proof', () => {
  const { signal } = new AbortController();
  const deps = { clock: systemClock, deadlineMs: 20_000 };

  test('succeeds for two connections to one process, in either order', async () => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    expect(await isSameByAbort(connectionTo(fake), connectionTo(tunnel), deps, signal)).toBe(true);
    expect(await isSameByAbort(connectionTo(tunnel), connectionTo(fake), deps, signal)).toBe(true);
    await until('the streams to be closed', () => fake.openStreams === 0);
  });

  test('uses a new valid session id each time, and names no directory', async () => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    await isSameByAbort(connectionTo(fake), connectionTo(tunnel), deps, signal);
    await isSameByAbort(connectionTo(fake), connectionTo(tunnel), deps, signal);
    const targets = tunnel.requests.map(({ method, target }) => `${method} ${target}`);
    expect(new Set(targets).size).toBe(2);
    for (const target of targets) expect(target).toMatch(/^POST \/session\/ses_[0-9A-Za-z]{26}\/abort$/);
  });

  test('repeats the abort if the stream missed the event', async () => {
    const [fake, elsewhere] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const proxy = await tunnelTo(elsewhere);
    const clock = new ManualClock();
    const proving = isSameByAbort(connectionTo(fake), connectionTo(proxy), { clock, deadlineMs: 60_000 }, signal);
    for (const [index, pauseMs] of [100, 500, 2000].entries()) {
      await until('the abort', () => elsewhere.count('POST /session/:id/abort') === index + 1);
      await until('the pause', () => clock.due(pauseMs) === 1);
      await clock.advance(pauseMs);
    }
    await until('the last abort', () => proxy.requests.length === 4);
    const targets = new Set(proxy.requests.map(({ target }) => target));
    expect(targets.size).toBe(1);
    fake.emit('session.idle', { sessionID: [...targets][0]?.split('/')[2] });
    expect(await proving).toBe(true);
  });

  test('fails for two similar processes at the deadline', async () => {
    const [one, other] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const clock = new ManualClock();
    const proving = isSameByAbort(connectionTo(one), connectionTo(other), { clock, deadlineMs: 60_000 }, signal);
    await until('the abort', () => other.count('POST /session/:id/abort') === 1);
    // Events of other sessions prove nothing.
    one.emit('session.idle', { sessionID: 'ses_another' });
    one.emit('session.status', { sessionID: 'ses_another', status: { type: 'idle' } });
    await clock.advance(60_000);
    expect(await proving).toBe(false);
    await until('the stream to be closed', () => one.openStreams === 0);
  });

  test('fails if an endpoint is gone', async () => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    await fake.close();
    expect(await isSameByAbort(connectionTo(fake), connectionTo(tunnel), deps, signal)).toBe(false);
  });

  test.each([
    ['an endpoint that answers with a web page', { kind: 'html' }],
    ['a stream that ends', { kind: 'answer', headers: { 'content-type': 'text/event-stream' }, body: '' }],
  ] as const)('fails for %s', async (_, override) => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    fake.override('GET /global/event', override);
    expect(await isSameByAbort(connectionTo(fake), connectionTo(tunnel), deps, signal)).toBe(false);
  });

  test('ends when its signal aborts', async () => {
    const [one, other] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const controller = new AbortController();
    const clock = new ManualClock();
    const proving = isSameByAbort(
      connectionTo(one),
      connectionTo(other),
      { clock, deadlineMs: 60_000 },
      controller.signal,
    );
    await until('the abort', () => other.count('POST /session/:id/abort') === 1);
    controller.abort();
    expect(await proving).toBe(false);
    expect(clock.due()).toBe(0);
  });
});
