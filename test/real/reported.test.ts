import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { createTailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import { isReported } from '../../src/model/report.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { respond } from '../../src/operations/respond/respond.ts';
import type { Call, Runtime } from '../../src/operations/runtime.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { runService, type RunningService, SELF } from '../node/stage.ts';
import { MemoryLocalApi, tailnetNode } from '../rig/memory-local-api.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import type { Opencode } from '../rig/opencode.ts';
import { createRealSession } from '../rig/real-session.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const ID = 'real-instance';

/** Two machines: one with a real opencode and a node service that watches it, and one that looks at it. Whois alone is in memory. */
describe.skipIf(isMissing(PINNED_OPENCODE))('a real opencode, as its node service says', () => {
  let stage: Stage;
  let opencode: Opencode;
  let node: RunningService;
  let fleet: LiveFleet;
  let runtime: Runtime;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode();
    await stage.registry.add({ name: 'real', port: opencode.port, cwd: opencode.directory, id: ID });
    const server = tailnetNode({ id: 'server', addresses: [SELF] });
    // Where a connection to another loopback address comes from.
    const laptop = tailnetNode({ id: 'laptop', addresses: ['127.0.0.1'] });
    const api = new MemoryLocalApi(server);
    api.join(laptop);
    node = await runService(stage.registry.path, api, { watch: true });
    await until('the service to listen', () => node.service.addresses.length > 0);
    const seen = new MemoryLocalApi(laptop);
    seen.join(server);
    const source = createTailscaleSource(
      { nodePort: node.port, ports: [], tags: [], users: [] },
      { clock: systemClock, logger: silentLogger, localApi: seen },
    );
    fleet = new LiveFleet({
      settings: { discoveryIntervalMs: 3_600_000, healthCheckTimeoutMs: 15_000, healthConcurrency: 4 },
      sources: [source],
      resolveCredential: () => Promise.resolve(undefined),
      clock: systemClock,
      logger: silentLogger,
    });
    runtime = testRuntime(fleet);
    fleet.start();
    await isIn('idle');
    await until('the first look to end', () => fleet.counters.inFlight === 0);
  });
  afterAll(async () => {
    await fleet.close();
    await Promise.all([node.watcher.close(), node.service.close()]);
    await stage.close();
  });

  const isIn = (state: string): Promise<true> =>
    until(`it to be ${state}`, () =>
      fleet.snapshot().instances.some((one) => one.state === state && isReported(one.server)),
    );
  const call = (): Call => ({
    signal: new AbortController().signal,
    deadlineMs: systemClock.monotonic() + 60_000,
    onProgress: () => {},
  });
  /** Requests that the node service passed on to it. */
  const passedOn = (): number =>
    node.log.filter(({ fields }) => String(fields['path']).startsWith(INSTANCE_PREFIX + ID)).length;

  test('works and ends, and whoever waits for it asks it only for what it said', async () => {
    const session = await createRealSession(opencode, 'Watched');
    const before = passedOn();
    await session.prompt('gate ends: the end');
    await isIn('busy');
    await stage.model.waitForGate('ends');
    const waiting = wait(runtime, { for: 'any' }, call());
    const { data } = await instances(runtime, { offset: 0 }, call());
    expect(data.instances).toMatchObject([{ name: 'real', state: 'busy', session: { id: session.id } }]);
    expect((await getStatus(runtime, { instance: 'real' }, call())).data).toMatchObject({
      state: 'busy',
      sessions: [{ id: session.id, title: 'Watched', state: 'busy' }],
    });
    expect(passedOn()).toBe(before);
    stage.model.release('ends');
    expect((await waiting).data.turns).toMatchObject([
      { session: { id: session.id }, outcome: 'completed', text: 'the end' },
    ]);
    await isIn('idle');
  });

  test('asks for permission, which is told without a request, and settled by one that proves it first', async () => {
    const session = await createRealSession(opencode, 'Asks');
    await session.prompt('bash: rm -rf build');
    await isIn('waiting');
    const before = passedOn();
    for (let times = 0; times < 3; times += 1) {
      const { data } = await wait(runtime, { instances: ['real'], for: 'any' }, call());
      expect(data.turns).toMatchObject([
        { session: { id: session.id }, outcome: 'waiting', waiting: [expect.stringContaining('rm -rf build')] },
      ]);
      const [row] = (await instances(runtime, { offset: 0 }, call())).data.instances;
      expect(row).toMatchObject({ state: 'waiting', waiting: [expect.stringContaining('rm -rf build')] });
    }
    expect(passedOn()).toBe(before);
    await respond(runtime, { instance: 'real', reply: 'reject' }, call());
    await isIn('idle');
    expect(passedOn()).toBeGreaterThan(before);
  });
});
