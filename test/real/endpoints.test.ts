import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { testCall, testFleet, testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const ROUTES = ['tailnet', 'relay', 'lan'] as const;
/** The first turn of a cold opencode on a busy machine. */
const COLD_MS = 150_000;
const PROMPT = { path: /prompt_async$/ };

describe.skipIf(isMissing(PINNED_OPENCODE))('a real opencode by a tailnet, a relay and a LAN at once', () => {
  let stage: Stage;
  let proxies: readonly [FaultProxy, FaultProxy, FaultProxy];
  let runtime: Runtime;

  beforeAll(async () => {
    stage = await openStage();
    const { url, port } = await stage.opencode();
    proxies = await Promise.all([startFaultProxy(url), startFaultProxy(url), startFaultProxy(url)]);
    const source = new TestSource();
    const claims = { id: 'x', name: 'work', hostname: 'laptop', localPort: port };
    for (const [index, route] of ROUTES.entries())
      source.candidates.set(route, candidate({ key: route, url: proxies[index]?.url ?? '', route, claims }));
    // It scans only once an hour: whatever is found is found by the calls.
    const fleet = testFleet(source);
    runtime = testRuntime(fleet);
    fleet.start();
    await until('the proxies to be proven one', () => fleet.snapshot().instances[0]?.server.endpoints.length === 3);
  });
  afterAll(async () => {
    await runtime?.fleet.close();
    await Promise.all(proxies?.map((proxy) => proxy.close()) ?? []);
    await stage?.close();
  });

  test('is listed as one instance with its best endpoint and the other endpoints', async () => {
    const { data } = await instances(runtime, { offset: 0, limit: 10 }, testCall());
    expect(data.instances).toMatchObject([
      { name: 'work', via: `tailnet ${proxies[0].url}`, also: [`relay ${proxies[1].url}`, `lan ${proxies[2].url}`] },
    ]);
  });

  test('answers completely, to a message sent once, although each proxy is cut in turn during the answer', async () => {
    const message = 'gate-mid proxies: the first half, |and the second half';
    let shown = '';
    const onProgress = (text: string): void => void (shown += text);
    const call = testCall({ deadlineMs: systemClock.monotonic() + 200_000, onProgress });
    const sending = send(runtime, { instance: 'work', message }, call);
    await stage.model.waitForGate('proxies', COLD_MS);
    await until('the first half to be shown', () => shown !== '', COLD_MS);
    const [tailnet, relay, lan] = proxies;
    const followedOver = (proxy: FaultProxy): Promise<unknown> =>
      until('the turn to be followed over another proxy', () => proxy.openStreams > 0);
    await tailnet.down();
    await followedOver(relay);
    await relay.down();
    await followedOver(lan);
    await tailnet.up();
    await lan.down();
    await followedOver(tailnet);
    stage.model.release('proxies');
    const { data } = await sending;
    expect([data.outcome, data.text, shown]).toEqual(['completed', expectedReply(message), expectedReply(message)]);
    expect(stage.model.turns(message)).toBe(1);
    expect(proxies.map((proxy) => proxy.count(PROMPT))).toEqual([1, 0, 0]);
  });
});
