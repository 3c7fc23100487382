import { mkdir } from 'node:fs/promises';

import { describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { createTailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import type { Instance } from '../../src/model/instance.ts';
import { isReported } from '../../src/model/report.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { readSocketTable } from '../../src/base/socket-table.ts';
import { DIRECTORY, type NodeStageOptions, openNodeStage, OWN_LAPTOP } from '../node/stage.ts';
import { startFakeLocalApi } from '../rig/fake/fake-local-api.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { tailnetNode } from '../rig/fake/memory-local-api.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { tempDir } from '../rig/temp.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';
import { until, within } from '../rig/wait.ts';

const never = new AbortController().signal;
/** Tailnet address of the machine with the node service. */
const ADDRESS = '100.64.0.2';

type Pair = Awaited<ReturnType<typeof openPair>>;

/** A node service on a machine without a TUN, and a source on another machine without a TUN, which dials that service. */
async function openPair(options: Pick<NodeStageOptions, 'watch' | 'opencodeStateDir'> = {}) {
  const uid = process.getuid?.();
  const service = await openNodeStage({
    ...options,
    tun: false,
    loopbackPeer: { tailscaledUid: () => Promise.resolve(uid), readSockets: readSocketTable },
  });
  service.api.set({ self: tailnetNode({ id: 'self', addresses: [ADDRESS] }) });
  const laptop = service.api.callers.get(OWN_LAPTOP);
  if (laptop !== undefined) service.api.callers.set('127.0.0.1', laptop);
  await until('the machine to know its address', async () => {
    const headers = { host: ADDRESS };
    return (await service.call(LIST_PATH, { from: '127.0.0.1', headers })).status === 200;
  });
  const fake = await startFakeLocalApi({ peers: [{}], status: { TUN: false }, dial: () => service.port });
  const source = createTailscaleSource(
    { socketPath: fake.socketPath, nodePort: service.port, ports: [], tags: [], users: [] },
    { clock: systemClock, logger: silentLogger },
  );
  return {
    service,
    source,
    /** Names of the source's current candidates. */
    names: async () => (await source.scan(never)).candidates.map(({ claims }) => claims.name),
    async [Symbol.asyncDispose]() {
      await source.close();
      await fake.close();
      await service[Symbol.asyncDispose]();
    },
  };
}

/** The fleet of the other machine, and the requests it makes through the node service. */
function openRemoteFleet({ source, service }: Pair) {
  const fleet = new LiveFleet({
    settings: { discoveryIntervalMs: 3_600_000, healthCheckTimeoutMs: 10_000, healthConcurrency: 4 },
    sources: [source],
    resolveCredential: () => Promise.resolve(undefined),
    clock: systemClock,
    logger: silentLogger,
  });
  onTestFinished(() => fleet.close());
  fleet.start();
  return {
    runtime: testRuntime(fleet),
    /** Waits until a report has the state and, unless idle, the session. Before that, the instance itself gets requests. */
    waitForState: (instanceName: string, state: string): Promise<Instance> =>
      until(`${instanceName} to be ${state}`, () =>
        fleet.snapshot().instances.find(({ name, state: current, server, overview }) => {
          const isComplete = state === 'idle' || (overview?.sessions ?? []).length > 0;
          return name === instanceName && current === state && isReported(server) && isComplete;
        }),
      ),
    /** Waits for probes that started before the reports were followed. */
    waitForProbes: (): Promise<true> => until('the first probes to end', () => fleet.counters.inFlight === 0),
    /** Paths of the requests that the node service forwarded to the instance with this id. */
    forwardedPaths: (id: string): readonly string[] =>
      service.log.map(({ fields }) => String(fields['path'])).filter((path) => path.startsWith(INSTANCE_PREFIX + id)),
  };
}

describe.skipIf(process.platform !== 'linux')('a source and a node service', () => {
  test('an instance that starts or ends causes a hint without a scan, even over a dialled connection', async () => {
    await using pair = await openPair();
    const { service, source, names } = pair;
    const listening = new AbortController();
    onTestFinished(() => listening.abort());
    const hints = source.changes(listening.signal)[Symbol.asyncIterator]();
    expect(await names()).toEqual(['one']);
    await until('the list to be held', () => service.service.waiting === 1);
    await using second = await startFakeOpencode();
    await service.registry.add({ name: 'second', port: second.port, cwd: second.directory, id: 'second' });
    await until('the second instance', async () => {
      await within(hints.next(), 'a hint');
      return (await names()).includes('second');
    });
    await until('the list to be held again', () => service.service.waiting === 1);
    await service.registry.remove('second');
    await until('the end of the second instance', async () => {
      await within(hints.next(), 'a hint');
      return !(await names()).includes('second');
    });
    await until('the list to be held again', () => service.service.waiting === 1);
    await source.close();
    await until('the held request to end', () => service.service.waiting === 0);
  });

  test('the state of an instance is known from busy to idle without a request to the instance', async () => {
    await using pair = await openPair({ watch: true });
    const { service } = pair;
    await using fake = await startFakeOpencode();
    await service.registry.add({ name: 'worker', port: fake.port, cwd: fake.directory, id: 'worker' });
    const { runtime, waitForState, waitForProbes, forwardedPaths } = openRemoteFleet(pair);
    await waitForState('worker', 'idle');
    await waitForProbes();
    const before = forwardedPaths('worker');
    const { id } = fake.addSession({ title: 'Fix the build' });
    fake.state.begin(id, 'do it');
    await waitForState('worker', 'busy');
    const { id: request } = fake.addPermission({ sessionID: id });
    await waitForState('worker', 'waiting');
    const status = await getStatus(runtime, { instance: 'worker' }, testCall());
    expect(status.data).toMatchObject({ state: 'waiting', waiting: [`permission ${request}: «bash "ls"»`] });
    expect(forwardedPaths('worker')).toEqual(before);
    fake.state.permissions.clear();
    fake.emit('permission.replied', { sessionID: id, requestID: request, reply: 'once' });
    await waitForState('worker', 'busy');
    const waitResult = wait(runtime, { instances: ['worker'], for: 'any' }, testCall());
    fake.state.finish(id, 'all is well');
    expect((await waitResult).data.turns).toMatchObject([
      { session: { id }, outcome: 'completed', text: 'all is well' },
    ]);
    await waitForState('worker', 'idle');
    expect(forwardedPaths('worker').length).toBeGreaterThan(before.length);
  });

  test('the state of an OpenCode 2 service and of its directories is known without loading a directory', async () => {
    await using folder = tempDir('reported-service');
    await mkdir(folder.path, { recursive: true });
    await using fake = await startFakeOpencode2();
    await fake.register(folder.path);
    await using pair = await openPair({ watch: true, opencodeStateDir: folder.path });
    const { runtime, waitForState, waitForProbes, forwardedPaths } = openRemoteFleet(pair);
    await waitForState('host2:service', 'idle');
    await waitForProbes();
    const before = forwardedPaths('service');
    // Another server also lists this directory, as idle.
    const directory = DIRECTORY;
    const { data: session } = await fake.json<{ data: { id: string } }>('POST', '/api/session', {
      location: { directory },
    });
    await fake.json('POST', `/api/session/${session.id}/prompt`, { text: 'gate turn: done' });
    await fake.model.waitForGate('turn');
    await waitForState('host2-project', 'busy');
    for (const instance of ['host2-project', 'host2:service']) {
      const { data } = await getStatus(runtime, { instance }, testCall());
      expect(data).toMatchObject({ state: 'busy', sessions: [{ id: session.id, state: 'busy' }] });
    }
    const waitResult = wait(runtime, { instances: ['host2-project'], for: 'any' }, testCall());
    expect(forwardedPaths('service')).toEqual(before);
    fake.model.release('turn');
    expect((await waitResult).data.turns).toMatchObject([
      { instance: 'host2-project', outcome: 'completed', text: 'done' },
    ]);
    await waitForState('host2:service', 'idle');
    // Not busy, as it was last listed.
    expect((await getStatus(runtime, { instance: 'host2-project' }, testCall())).data.state).toBe('idle');
  });
});
