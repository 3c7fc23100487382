import { describe, expect, onTestFinished, test } from 'vitest';

import { FOLLOW_PACE_MS } from '../../../src/discovery/tailnet/peer-table.ts';
import type { Candidate } from '../../../src/model/candidate.ts';
import { REPORT_LIFETIME_MS, type Report } from '../../../src/model/report.ts';
import { busyIn, FakeNodeService, type FakeNodeServer, idleIn } from '../../rig/fake/fake-node-service.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { until } from '../../rig/wait.ts';
import { peerTable } from './peer-table-stage.ts';

const A: FakeNodeServer = { id: 'a', directory: '/srv/a', overviews: [idleIn('/srv/a')] };
const B: FakeNodeServer = { id: 'b', directory: '/srv/b', overviews: [idleIn('/srv/b')] };

/** The average interval between two answers with changes. */
const PACE_MS = 250;

async function followNode(node: FakeNodeService) {
  const listener = await listenHttp(node.serve);
  onTestFinished(() => listener.close());
  const stage = peerTable(listener.port);
  const { table, clock, changes } = stage;
  await stage.follow();
  const candidate = (id: string): Candidate | undefined =>
    table.found.candidates.find(({ claims }) => claims.id === id);
  return {
    ...stage,
    node,
    candidate,
    report: (id: string): Report | undefined => candidate(id)?.report,
    /** Waits until the service holds a request; advances the clock by the follow pace if needed. */
    held: (): Promise<true> =>
      until('a request to be held', async () => {
        if (node.held.size === 0) await clock.advance(FOLLOW_PACE_MS);
        return node.held.size === 1;
      }),
    async changed(act: () => void): Promise<void> {
      const before = changes();
      act();
      await until('the change', () => changes() > before);
    },
  };
}

describe('following a node service with states', () => {
  test('gets the list, the states and their changes, with one held request for each change', async () => {
    const { node, held, changed, candidate, report } = await followNode(new FakeNodeService([A, B]));
    await held();
    expect(candidate('a')).toMatchObject({ claims: { id: 'a', name: 'a', directory: '/srv/a' } });
    expect(report('a')).toMatchObject({
      result: { status: 'healthy', version: '1.18.33', dialect: 'opencode-1', directory: '/srv/a', worktree: '/srv/a' },
      overviews: [idleIn('/srv/a')],
    });
    const [before, other] = [report('a'), report('b')];
    await changed(() => node.say([{ ...A, overviews: [busyIn('/srv/a')] }, B]));
    expect(report('a')?.overviews).toMatchObject([{ activity: { kind: 'busy' } }]);
    expect(report('a')).not.toBe(before);
    expect(report('b')).toBe(other);
    await held();
    // The first request, and a held one for each change.
    expect(node.requests).toEqual(['states', 'states', 'states']);
  });

  test('uses reports that the service confirms, but none from before this machine slept', async () => {
    const { node, clock, held, changes, report } = await followNode(new FakeNodeService([A]));
    await held();
    const before = report('a');
    expect(before?.isCurrent()).toBe(true);
    clock.step(REPORT_LIFETIME_MS);
    expect(before?.isCurrent()).toBe(false);
    node.confirm();
    await until('the report to be current again', () => before?.isCurrent());
    expect([report('a') === before, changes()]).toEqual([true, 1]);
    clock.step(-3600_000);
    expect(before?.isCurrent()).toBe(false);
  });

  test('drops reports but keeps candidates when the held request breaks', async () => {
    const { node, held, changed, candidate, report } = await followNode(new FakeNodeService([A]));
    await held();
    await changed(() => node.cut());
    expect(candidate('a')).toBeDefined();
    expect(candidate('a')).not.toHaveProperty('report');
    await held();
    expect(report('a')?.isCurrent()).toBe(true);
  });

  test('drops the report of a server whose state is left out, and reports a change', async () => {
    const { overviews: _, ...down } = A;
    const { node, held, changed, candidate } = await followNode(new FakeNodeService([A]));
    await held();
    await changed(() => node.say([down]));
    expect(candidate('a')).toBeDefined();
    expect(candidate('a')).not.toHaveProperty('report');
  });

  test('follows the list of an older service, and requests states each minute', async () => {
    const older = new FakeNodeService([A]);
    older.hasStates = false;
    const { clock, node, held, changed, candidate } = await followNode(older);
    await held();
    expect(candidate('a')).toBeDefined();
    expect(node.requests).toEqual(['states', 'instances', 'instances']);
    await changed(() => node.say([A, B]));
    await held();
    expect(node.requests.slice(3)).toEqual(['instances']);
    /** Lets a minute pass while the service ends held requests in time. Returns the requests of that minute. */
    const passMinute = async (): Promise<readonly string[]> => {
      const before = node.requests.length;
      for (let thirds = 0; thirds < 3; thirds += 1) {
        await clock.advance(20_000);
        node.confirm();
        await held();
      }
      return node.requests.slice(before);
    };
    // The list is still held, with the same tag.
    expect(await passMinute()).toEqual(['instances', 'instances', 'states', 'instances']);
    expect(await passMinute()).not.toContain('states');
    node.hasStates = true;
    await passMinute();
    expect(candidate('a')?.report?.isCurrent()).toBe(true);
  });

  test('follows a service through a downgrade and an update', async () => {
    const { node, held, changed, candidate, report, table } = await followNode(new FakeNodeService([A]));
    await held();
    node.hasStates = false;
    await changed(() => node.cut());
    await held();
    expect(table.found.candidates.map(({ key }) => key)).toEqual(['peer0/a']);
    expect(candidate('a')).not.toHaveProperty('report');
    node.hasStates = true;
    node.cut();
    await held();
    expect(report('a')?.isCurrent()).toBe(true);
  });

  test('limits requests to a service whose every answer has a change', async () => {
    const { node, table, clock, held } = await followNode(new FakeNodeService([A]));
    await held();
    let sent = 0;
    /** Answers each request that arrives without time passing with a change. Returns the number of answers. */
    const sendNews = async (): Promise<number> => {
      const before = sent;
      while (sent - before < 100) {
        await until('a request, or the timer before the next one', async () => {
          await clock.advance(0);
          return node.held.size === 1 || clock.due(PACE_MS) > 0;
        });
        if (node.held.size === 0) break;
        node.say([{ ...A, overviews: [busyIn('/srv/a', { title: `${(sent += 1)}` })] }]);
      }
      return sent - before;
    };
    // As many changes as a short turn makes at once.
    const atOnce = await sendNews();
    expect(atOnce).toBeGreaterThanOrEqual(8);
    expect(atOnce).toBeLessThanOrEqual(10);
    const before = node.requests.length;
    // A scan sends it no request either.
    await table.ask();
    expect(node.requests.length).toBe(before);
    for (let steps = 0; steps < 20; steps += 1) {
      await clock.advance(PACE_MS);
      expect(await sendNews()).toBeLessThanOrEqual(1);
    }
    expect(sent).toBeGreaterThan(20);
  });
});
