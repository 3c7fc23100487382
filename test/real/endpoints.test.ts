import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import { silentLogger } from '../../src/base/log.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import { read } from '../../src/operations/sessions/read.ts';
import { type Call, type Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { testRuntime } from '../rig/runtime.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { expectedReply } from '../rig/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
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
    const opencode = await stage.opencode();
    const [tailnet, relay, lan] = await Promise.all(ROUTES.map(() => startFaultProxy(opencode.url)));
    if (!tailnet || !relay || !lan) throw new Error('Expected three proxies');
    proxies = [tailnet, relay, lan];
    const source = new TestSource();
    const claims = { id: 'x', name: 'work', hostname: 'laptop', localPort: opencode.port };
    for (const [index, route] of ROUTES.entries())
      source.candidates.set(route, candidate({ key: route, url: proxies[index]?.url ?? '', route, claims }));
    const fleet = new LiveFleet({
      // No round comes between: what is found is found within the calls.
      settings: { discoveryIntervalMs: 3_600_000, healthCheckTimeoutMs: 20_000, healthConcurrency: 8 },
      sources: [source],
      resolveCredential: () => Promise.resolve(undefined),
      clock: systemClock,
      logger: silentLogger,
    });
    runtime = testRuntime(fleet);
    fleet.start();
    await until('the proxies to be proven one', () => fleet.snapshot().instances[0]?.server.endpoints.length === 3);
  });
  afterAll(async () => {
    await runtime?.fleet.close();
    await Promise.all(proxies?.map((proxy) => proxy.close()) ?? []);
    await stage?.close();
  });

  const call = (onProgress: (text: string) => void = () => {}): Call => ({
    signal: new AbortController().signal,
    deadlineMs: systemClock.monotonic() + 200_000,
    onProgress,
  });
  const followedBy = (proxy: FaultProxy | undefined): Promise<unknown> =>
    until('the turn to be followed by another way', () => (proxy?.openStreams ?? 0) > 0);

  test('is one entry, by the best endpoint, and the others are told', async () => {
    const { data } = await instances(runtime, { offset: 0, limit: 10 }, call());
    expect(data.instances).toMatchObject([
      { name: 'work', via: `tailnet ${proxies[0].url}`, also: [`relay ${proxies[1].url}`, `lan ${proxies[2].url}`] },
    ]);
  });

  test('each proxy is cut in turn in the middle of a streamed turn: the answer is whole, and asked for once', async () => {
    const message = 'gate-mid proxies: the first half, |and the second half';
    let shown = '';
    const sending = send(
      runtime,
      { instance: 'work', message },
      call((text) => (shown += text)),
    );
    await stage.model.waitForGate('proxies', COLD_MS);
    await until('the first half to be shown', () => shown !== '', COLD_MS);
    const [tailnet, relay, lan] = proxies;
    await tailnet.down();
    await followedBy(relay);
    await relay.down();
    await followedBy(lan);
    await tailnet.up();
    await lan.down();
    await followedBy(tailnet);
    stage.model.release('proxies');
    const { data } = await sending;
    expect([data.outcome, data.text, shown]).toEqual(['completed', expectedReply(message), expectedReply(message)]);
    expect(stage.model.turns(message)).toBe(1);
    expect(proxies.map((proxy) => proxy.count(PROMPT))).toEqual([1, 0, 0]);
    await Promise.all(proxies.map((proxy) => proxy.up()));
  });

  test('the proxy is cut again and again as the text streams: nothing is lost or doubled', async () => {
    await runtime.fleet.refresh();
    await until(
      'all proxies to be proven again',
      () => runtime.fleet.snapshot().instances[0]?.server.endpoints.length === ROUTES.length,
    );
    const message = 'slow 30 120: word';
    let shown = '';
    let over = false;
    const streams = (): number => proxies.reduce((sum, { openStreams }) => sum + openStreams, 0);
    const sending = send(
      runtime,
      { instance: 'work', message },
      call((text) => (shown += text)),
    ).finally(() => (over = true));
    let cuts = 0;
    for (;;) {
      await until('the turn to be followed or over', () => over || streams() > 0);
      if (over) break;
      cuts += proxies.reduce((sum, proxy) => sum + proxy.cutStreams(), 0);
    }
    const { data } = await sending;
    expect(cuts).toBeGreaterThan(2);
    expect([data.outcome, data.text, shown]).toEqual(['completed', expectedReply(message), expectedReply(message)]);
    expect(stage.model.turns(message)).toBe(1);
  });

  test('all cut: offline, with what each proxy said; one restored: back by it', async () => {
    await Promise.all(proxies.map((proxy) => proxy.down()));
    const status = await getStatus(runtime, { instance: 'work' }, call());
    expect(status.data.state).toBe('offline');
    for (const { url } of proxies) expect(status.data.reason).toContain(`${url}/global/health: ECONNREFUSED`);
    await proxies[2].up();
    expect((await getStatus(runtime, { instance: 'work' }, call())).data).toMatchObject({
      state: 'idle',
      via: `lan ${proxies[2].url}`,
    });
    const { data } = await read(runtime, { instance: 'work', message_limit: 1 }, call());
    expect(data.messages).toHaveLength(1);
  });
});
