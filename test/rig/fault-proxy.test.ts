import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { tapEvents } from './event-tap.ts';
import { startFakeOpencode, type FakeOpencode } from './fake-opencode.ts';
import { startFaultProxy, type FaultProxy } from './fault-proxy.ts';
import { until, within } from './wait.ts';

describe('fault proxy', () => {
  let fake: FakeOpencode;
  let proxy: FaultProxy;

  beforeEach(async () => {
    fake = await startFakeOpencode();
    proxy = await startFaultProxy(fake.url);
  });
  afterEach(async () => {
    await proxy.close();
    await fake.close();
  });

  const get = (path: string): Promise<Response> => fetch(proxy.url + path, { signal: AbortSignal.timeout(30_000) });
  /** What a client sees of a broken connection; undici tells which in `cause`. */
  const breakage = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => 'nothing broke',
      (error: unknown) =>
        error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error),
    );

  it('passes requests and answers unchanged and records them', async () => {
    const response = await fetch(`${proxy.url}/session?directory=%2Fx`, { method: 'POST', body: '{"title":"passed"}' });
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toMatchObject({ title: 'passed' });
    expect(proxy.requests).toMatchObject([
      { method: 'POST', path: '/session', target: '/session?directory=%2Fx', body: '{"title":"passed"}', status: 200 },
    ]);
    expect(fake.count('POST /session')).toBe(1);
  });

  it('applies the newest rule that matches, as often as it says', async () => {
    const takeBack = proxy.rule({ path: /^\/session/ }, { kind: 'respond', status: 503 });
    proxy.rule({ method: 'GET', path: '/session' }, { kind: 'respond', status: 418, body: 'short' }, 1);
    expect((await get('/session')).status).toBe(418);
    expect((await get('/session')).status).toBe(503);
    expect((await get('/global/health')).status).toBe(200);
    takeBack();
    expect((await get('/session')).status).toBe(200);
    expect(proxy.count({ path: '/session' })).toBe(3);
  });

  it('resets a connection without telling upstream', async () => {
    proxy.rule({}, { kind: 'reset' });
    expect(await breakage(get('/global/health'))).toContain('ECONNRESET');
    expect(fake.count('GET /global/health')).toBe(0);
  });

  it('accepts and never answers', async () => {
    proxy.rule({ path: '/global/health' }, { kind: 'hang' });
    const controller = new AbortController();
    const hanging = fetch(`${proxy.url}/global/health`, { signal: controller.signal });
    await proxy.waitForRequest({ path: '/global/health' });
    expect((await get('/path')).status).toBe(200);
    controller.abort();
    await expect(hanging).rejects.toThrow('aborted');
    expect(fake.count('GET /global/health')).toBe(0);
  });

  it('holds a request until it is released', async () => {
    proxy.rule({ path: '/path' }, { kind: 'hold', gate: 'later' });
    const held = get('/path');
    await proxy.waitForRequest({ path: '/path' });
    expect((await get('/global/health')).status).toBe(200);
    expect(fake.count('GET /path')).toBe(0);
    proxy.release('later');
    expect((await held).status).toBe(200);
    expect(fake.count('GET /path')).toBe(1);
  });

  it('lets upstream do the work and loses the answer', async () => {
    proxy.rule({ method: 'POST' }, { kind: 'lose-response' });
    expect(await breakage(fetch(`${proxy.url}/session`, { method: 'POST', body: '{"title":"made"}' }))).toContain(
      'ECONNRESET',
    );
    expect([...fake.state.sessions.values()].map(({ title }) => title)).toEqual(['made']);
    expect(proxy.requests[0]).toMatchObject({ status: 200 });
  });

  it('cuts a request in the middle of its body, so that upstream never has the whole', async () => {
    proxy.rule({ method: 'POST' }, { kind: 'cut-request' });
    const body = JSON.stringify({ title: 'x'.repeat(200_000) });
    expect(await breakage(fetch(`${proxy.url}/session`, { method: 'POST', body }))).not.toBe('nothing broke');
    expect(proxy.requests[0]?.body).toHaveLength(Math.floor(body.length / 2));
    expect(proxy.requests[0]?.status).toBeUndefined();
    expect(fake.state.sessions.size).toBe(0);
  });

  it('cuts an answer after a number of bytes', async () => {
    fake.override('GET /path', { kind: 'answer', body: 'y'.repeat(50_000) });
    proxy.rule({ path: '/path' }, { kind: 'cut-response', afterBytes: 1_000 });
    const response = await get('/path');
    expect(response.status).toBe(200);
    expect(await breakage(response.text())).not.toBe('nothing broke');
  });

  it('falls silent in an answer and keeps the connection', async () => {
    fake.override('GET /path', { kind: 'answer', body: 'y'.repeat(50_000) });
    proxy.rule({ path: '/path' }, { kind: 'stall-response', afterBytes: 1_000 });
    const reader = (await get('/path')).body?.getReader();
    let received = 0;
    while (received < 1_000) received += (await reader?.read())?.value?.length ?? 0;
    expect(received).toBe(1_000);
    const rest = reader?.read();
    // A whole exchange later nothing more has come, neither bytes nor an end.
    expect((await get('/global/health')).status).toBe(200);
    expect(await Promise.race([rest, Promise.resolve('silent')])).toBe('silent');
    await reader?.cancel();
  });

  it('breaks event streams on demand and lets new ones through', async () => {
    await using tap = await tapEvents(proxy);
    await tap.waitFor('server.connected');
    await until('the stream to be known', () => proxy.openStreams === 1);
    expect(proxy.cutStreams()).toBe(1);
    expect(await within(tap.ended, 'the stream to break')).toBeInstanceOf(Error);
    await using again = await tapEvents(proxy);
    fake.emit('session.idle', { sessionID: 'ses_after' });
    await again.waitFor('session.idle');
    await until('upstream to lose the first stream', () => fake.openStreams === 1);
  });

  it('silences event streams and leaves them open', async () => {
    await using tap = await tapEvents(proxy);
    await tap.waitFor('server.connected');
    expect(proxy.stallStreams()).toBe(1);
    await using fresh = await tapEvents(proxy);
    fake.emit('session.idle', { sessionID: 'ses_unheard' });
    await fresh.waitFor('session.idle');
    expect(tap.types).toEqual(['server.connected']);
    expect(proxy.openStreams).toBe(2);
  });

  it('refuses connections while it is down, and has the same port after', async () => {
    await proxy.down();
    expect(await breakage(get('/global/health'))).toContain('ECONNREFUSED');
    await proxy.up();
    expect((await get('/global/health')).status).toBe(200);
  });

  it('can be turned to another server', async () => {
    await using other = await startFakeOpencode({ version: '9.9.9' });
    proxy.retarget(other.url);
    expect(await (await get('/global/health')).json()).toEqual({ healthy: true, version: '9.9.9' });
  });

  it('breaks the answer when upstream dies', async () => {
    await using tap = await tapEvents(proxy);
    await tap.waitFor('server.connected');
    fake.endStreams('destroy');
    expect(await within(tap.ended, 'the stream to break')).toBeInstanceOf(Error);
    await fake.close();
    expect(await breakage(get('/global/health'))).toContain('ECONNRESET');
  });
});
