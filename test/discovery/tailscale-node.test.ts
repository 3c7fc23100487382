import { describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { createTailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { readSocketTable } from '../../src/base/socket-table.ts';
import { type NodeStage, openNodeStage, OWN_LAPTOP } from '../node/stage.ts';
import { startFakeLocalApi } from '../rig/fake-local-api.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { tailnetNode } from '../rig/memory-local-api.ts';
import { until, within } from '../rig/wait.ts';

const never = new AbortController().signal;
/** Of the machine with the node service, in the eyes of the other. */
const ADDRESS = '100.64.0.2';

interface Pair extends AsyncDisposable {
  readonly service: NodeStage;
  readonly source: ReturnType<typeof createTailscaleSource>;
  /** Instances as the source tells them now. */
  names(): Promise<readonly (string | undefined)[]>;
}

/** A node service where tailscaled has no TUN, and a source on another such machine, which dials it. */
async function openPair(): Promise<Pair> {
  const uid = process.getuid?.();
  const service = await openNodeStage({
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
    names: async () => (await source.scan(never)).candidates.map(({ claims }) => claims.name),
    async [Symbol.asyncDispose]() {
      await source.close();
      await fake.close();
      await service[Symbol.asyncDispose]();
    },
  };
}

describe.skipIf(process.platform !== 'linux')('a source and a node service', () => {
  test('news of an instance come by themselves, through dial too', async () => {
    await using pair = await openPair();
    const { service, source, names } = pair;
    const listening = new AbortController();
    onTestFinished(() => listening.abort());
    const hints = source.changes(listening.signal)[Symbol.asyncIterator]();
    expect(await names()).toEqual(['one']);
    await until('the list to be held', () => service.service.waiting === 1);
    await using second = await startFakeOpencode();
    await service.registry.add({ name: 'second', port: second.port, cwd: second.directory, id: 'second' });
    await until('word of it', async () => {
      await within(hints.next(), 'a hint');
      return (await names()).includes('second');
    });
    await until('the list to be held again', () => service.service.waiting === 1);
    await service.registry.remove('second');
    await until('word of its end', async () => {
      await within(hints.next(), 'a hint');
      return !(await names()).includes('second');
    });
    await until('the list to be held again', () => service.service.waiting === 1);
    await source.close();
    await until('it to be let go', () => service.service.waiting === 0);
  });
});
