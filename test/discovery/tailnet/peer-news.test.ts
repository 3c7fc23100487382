import { describe, expect, onTestFinished, test } from 'vitest';

import { type Clock, systemClock } from '../../../src/base/clock.ts';
import { LATER_BUDGET_MS } from '../../../src/discovery/tailnet/tailscale.ts';
import { busyIn, FakeNodeService, type FakeNodeServer, idleIn } from '../../rig/fake/fake-node-service.ts';
import { until, within } from '../../rig/wait.ts';
import { tailnetStage, type TailnetStageOptions } from '../tailscale-stage.ts';

const never = new AbortController().signal;
const A: FakeNodeServer = { id: 'a', directory: '/srv', overviews: [idleIn('/srv')] };
const busy = (title: string): FakeNodeServer => ({ ...A, overviews: [busyIn('/srv', { title })] });

/** Time limits of scans and peers never end; the bus is read without pauses. */
const SLEEPS: ReadonlyMap<number, number> = new Map([
  [LATER_BUDGET_MS, Infinity],
  [3000, Infinity],
  [1000, 0],
]);

/** A source that follows one node service. The test moves its clock; requests use the system clock. */
async function startFollowing(options: Partial<TailnetStageOptions> = {}) {
  const clock: Clock & { nowMs: number } = {
    nowMs: 1_000_000,
    now: () => clock.nowMs,
    monotonic: () => clock.nowMs,
    sleep: (ms, signal) => systemClock.sleep(SLEEPS.get(ms) ?? ms, signal),
  };
  const node = new FakeNodeService([A]);
  const { servers, ...rest } = options;
  const stage = await tailnetStage({
    peers: [{}],
    servers: { '100.64.0.2:4095': node.serve, ...servers },
    options: { ports: [] },
    clock,
    ...rest,
  });
  onTestFinished(() => stage[Symbol.asyncDispose]());
  const { source, fake } = stage;
  const hints = source.changes(never)[Symbol.asyncIterator]();
  await within(hints.next(), 'the first hint');
  await fake.busOpened;
  await source.scan(never);
  const untilHeld = (): Promise<true> => until('a request to be held', () => node.held.size === 1);
  /** Changes the title on the peer, and returns the title that the next scan finds. */
  const scanAfter = async (title: string): Promise<string | undefined> => {
    node.say([busy(title)]);
    // The source has the change once it asks for the next one.
    await untilHeld();
    const { candidates } = await within(source.scan(never), 'the scan');
    return candidates.flatMap(({ report }) => report?.overviews[0]?.sessions ?? [])[0]?.title;
  };
  await untilHeld();
  const statuses = (): number => fake.asked.filter((path) => path === 'status').length;
  return { ...stage, clock, node, scanAfter, statuses };
}

describe('changes on a peer', () => {
  test('cause at most one read of the tailnet status a second', async () => {
    const { clock, scanAfter, statuses } = await startFollowing();
    await scanAfter('the bus is open');
    const before = statuses();
    for (const title of ['one', 'two', 'three']) expect(await scanAfter(title)).toBe(title);
    expect(statuses()).toBe(before);
    clock.nowMs += 1000;
    await scanAfter('four');
    expect(statuses()).toBe(before + 1);
  });

  test('do not delay changes of the tailnet itself', async () => {
    const { fake, source, scanAfter, statuses } = await startFollowing();
    await scanAfter('the bus is open');
    const before = statuses();
    fake.peers = [];
    fake.notify();
    for (let round = 0; round < 6 && statuses() === before; round += 1) await scanAfter(`${round}`);
    expect(statuses()).toBe(before + 1);
    expect((await source.scan(never)).candidates).toEqual([]);
  });

  test('are not delayed by a peer that does not answer', async () => {
    let isSilent = false;
    const { clock, scanAfter } = await startFollowing({
      peers: [{}, {}],
      servers: {
        '100.64.0.3:4095': (_, response) => {
          if (!isSilent) response.writeHead(500).end();
        },
      },
    });
    isSilent = true;
    // Peer and status are due again.
    clock.nowMs += 600_000;
    expect(await scanAfter('news')).toBe('news');
  });
});
