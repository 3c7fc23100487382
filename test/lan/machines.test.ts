import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { Lan, type Machine, needNamespaces } from '../rig/network/lan.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { missingForNamespaces } from '../rig/network/namespaces.ts';
import { mdnsSocketsOf } from '../rig/no-multicast.ts';
import { until } from '../rig/wait.ts';
import { listed, type Row } from './listing.ts';

describe('on a LAN of machines with a real opencode --mdns', () => {
  let lan: Lan;
  /** Two machines on the first LAN, one on the second. */
  let machines: readonly Machine[];
  let running: readonly { readonly directory: string }[];
  const hosts = (): string[] => machines.map((machine, index) => machine.on(index === 2 ? 2 : 1));

  beforeAll(async () => {
    if (missingForNamespaces() !== undefined) return;
    lan = await Lan.open();
    machines = [await lan.machine('one'), await lan.machine('two'), await lan.machine('three', { lans: [2] })];
    const started = await Promise.all(machines.map((machine, index) => machine.opencode(4096 + index)));
    announce(...started);
    running = started;
  });
  afterAll(() => lan?.close());
  beforeEach(needNamespaces);

  test('the instances on both LANs are listed by the source addresses of their packets', async () => {
    const viewer = await lan.machine('viewer', { lans: [1, 2] });
    await using server = await viewer.mcp();
    const rows = await listed(server, (found) => found.length === 3 && found.every(({ state }) => state === 'idle'));
    expect(new Set(rows.map(({ directory }) => directory))).toEqual(new Set(running.map(({ directory }) => directory)));
    expect(new Set(rows.map(({ host }) => host))).toEqual(new Set(hosts()));
    // The guard against multicast in other suites counts these sockets.
    expect(await mdnsSocketsOf(server.pid)).toBeGreaterThan(2);
    const { text } = await server.call('create_session', { instance: rows[0]?.name ?? '', title: 'over the LAN' });
    expect(text).toContain('over the LAN');
  });

  test('the first listing waits for mDNS answers, and shows only its own LAN', async () => {
    const viewer = await lan.machine('reader');
    const settings = ['--transport', 'mdns', '--health-timeout-ms', '15000'];
    const list = viewer.run([process.execPath, SERVER_SCRIPT, 'list', ...settings], await viewer.sandbox());
    await list.exited;
    expect(list.output).toContain('idle');
    expect(list.output).not.toContain(hosts()[2]);
  });

  test('opencode does not advertise a second instance with the same port, and its goodbye changes nothing', async () => {
    const [viewer, four] = [await lan.machine('witness'), await lan.machine('four')];
    await using server = await viewer.mcp();
    const isOnlyFirstListed = (found: readonly Row[]): boolean => {
      const [row, ...others] = found.filter(({ via }) => via.endsWith(':4096'));
      return others.length === 0 && row?.state === 'idle' && row.directory === running[0]?.directory;
    };
    await listed(server, isOnlyFirstListed);
    const second = await four.opencode(4096);
    await second.says(/already in use/);
    await second.kill('SIGINT');
    await server.call('refresh_instances');
    await listed(server, isOnlyFirstListed);
  });

  test('the source follows an interface that appears, disappears and appears again', async () => {
    const viewer = await lan.machine('roamer', { lans: [] });
    await using server = await viewer.mcp({ args: ['--log-level', 'debug'] });
    const logged = (text: string): number => server.stderr.filter((line) => line.includes(text)).length;
    await server.waitForStderr(
      /^debug source mdns is not available reason="no multicast on this machine: no network interface but loopback has an address"$/,
    );
    for (let round = 1; round <= 2; round += 1) {
      await viewer.plug(1, 'eth0');
      await listed(server, ([row]) => row?.state === 'idle');
      await until('the source to become available', () => logged('source mdns is available again') === round);
      await viewer.unplug('eth0');
      await until('the source to become unavailable', () => logged('source mdns is not available') === round + 1);
    }
  });

  test('a crashed machine goes offline and is found again at another address', async () => {
    const viewer = await lan.machine('patient');
    const one = machines[0]!;
    const directory = running[0]?.directory ?? '';
    await using server = await viewer.mcp({ env: { HEALTH_CHECK_TIMEOUT_MS: '1000' } });
    const hasOneInState = (state: string) => (rows: readonly Row[]) =>
      rows.some((row) => row.state === state && row.host === one.on(1));
    await listed(server, hasOneInState('idle'));
    await one.crash();
    await listed(server, hasOneInState('offline'));
    await one.move(99);
    await one.opencode(4096, { directory });
    const rows = await listed(server, hasOneInState('idle'));
    expect(rows.find(({ host }) => host === one.on(1))?.directory).toBe(directory);
  });
});
