import { afterEach, beforeEach, expect, it } from 'vitest';

import { tapEvents } from '../opencode/event-tap.ts';
import { startFakeOpencode, type FakeOpencode } from '../fake/fake-opencode.ts';
import { startFaultProxy, type Fault, type FaultProxy } from './fault-proxy.ts';
import { until } from '../wait.ts';

// Each fault must really happen: no other suite would notice if it did not.
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

/** Why a request failed; undici puts the reason into `cause`. */
const breakReason = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no break',
    (error: unknown) => (error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error)),
  );

it.each<{ readonly fault: Fault; readonly seen: RegExp; readonly arrived: number }>([
  { fault: { kind: 'reset' }, seen: /ECONNRESET/, arrived: 0 },
  { fault: { kind: 'cut-request' }, seen: /^(?!no break)/, arrived: 0 },
  { fault: { kind: 'lose-response' }, seen: /ECONNRESET/, arrived: 1 },
  { fault: { kind: 'cut-response', afterBytes: 40 }, seen: /^(?!no break)/, arrived: 1 },
])(
  'the proxy breaks one request by $fault.kind, which reaches upstream $arrived times',
  async ({ fault, seen, arrived }) => {
    const body = JSON.stringify({ title: 'x'.repeat(200_000) });
    const post = async (): Promise<unknown> => (await fetch(`${proxy.url}/session`, { method: 'POST', body })).json();
    proxy.rule({ method: 'POST' }, fault, 1);
    expect(await breakReason(post())).toMatch(seen);
    expect(fake.state.sessions.size).toBe(arrived);
    expect(await post()).toMatchObject({ title: expect.stringMatching(/^x/) });
  },
);

it('the proxy cuts streams, silences them with the connection open, and passes on a break of upstream', async () => {
  await using cutTap = await tapEvents(proxy);
  await until('the stream to be known', () => proxy.openStreams === 1);
  expect(proxy.cutStreams()).toBe(1);
  expect(await cutTap.ended).toBeInstanceOf(Error);
  await using silentTap = await tapEvents(proxy);
  await silentTap.waitFor('server.connected');
  expect(proxy.stallStreams()).toBe(1);
  await using nextTap = await tapEvents(proxy);
  fake.emit('session.idle', { sessionID: 'ses_1' });
  await nextTap.waitFor('session.idle');
  expect(silentTap.types).toEqual(['server.connected']);
  expect(proxy.openStreams).toBe(2);
  fake.endStreams('destroy');
  expect(await nextTap.ended).toBeInstanceOf(Error);
});
