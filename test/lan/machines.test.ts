import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { Lan, needNamespaces } from '../rig/lan.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { missingForNamespaces } from '../rig/namespaces.ts';
import { mdnsSocketsOf } from '../rig/no-multicast.ts';
import { until } from '../rig/wait.ts';
import { listed } from './listing.ts';

describe('on a LAN of machines with a real opencode --mdns', () => {
  let lan: Lan;

  beforeEach(async (context) => {
    needNamespaces(context);
    lan = await Lan.open();
  });
  afterEach(async () => {
    if (missingForNamespaces() === undefined) await lan.close();
  });

  test('all are listed, by the addresses that their packets come from', async () => {
    const viewer = await lan.machine('viewer');
    const machines = [await lan.machine('one'), await lan.machine('two'), await lan.machine('three')];
    const running = await Promise.all(machines.map((machine, index) => machine.opencode(4096 + index)));
    announce(...running);
    await using server = await viewer.mcp();
    const rows = await listed(server, (found) => found.length === 3 && found.every(({ state }) => state === 'idle'));
    expect(new Set(rows.map(({ directory }) => directory))).toEqual(new Set(running.map(({ directory }) => directory)));
    expect(new Set(rows.map(({ host }) => host))).toEqual(new Set(machines.map((machine) => machine.on(1))));
    // Which the rig's guard against multicast would see, too.
    expect(await mdnsSocketsOf(server.pid)).toBeGreaterThan(2);
    const { text } = await server.call('create_session', { instance: rows[0]?.name ?? '', title: 'over the LAN' });
    expect(text).toContain('over the LAN');
  });

  test('of two on one port the second is never advertised, and its goodbye ends nothing', async () => {
    const [viewer, one, two] = [await lan.machine('viewer'), await lan.machine('one'), await lan.machine('two')];
    const first = await one.opencode(4096);
    await using server = await viewer.mcp();
    const isThere = (found: readonly { readonly state: string; readonly directory?: string }[]): boolean =>
      found.length === 1 && found[0]?.state === 'idle' && found[0].directory === first.directory;
    await listed(server, isThere);
    const second = await two.opencode(4096);
    // opencode says so itself.
    await second.says(/already in use/);
    await second.kill('SIGINT');
    await server.call('refresh_instances');
    await listed(server, isThere);
  });

  test('one that is cut off goes offline, and comes back with another address', async () => {
    const [viewer, one] = [await lan.machine('viewer'), await lan.machine('one', { number: 20 })];
    const first = await one.opencode(4096);
    await using server = await viewer.mcp({ env: { HEALTH_CHECK_TIMEOUT_MS: '1000' } });
    await listed(server, ([row]) => row?.state === 'idle');
    await one.crash();
    await listed(server, ([row]) => row?.state === 'offline');
    await one.move(21);
    const again = await one.opencode(4096, { directory: first.directory });
    const rows = await listed(server, (found) =>
      found.some(({ state, host }) => state === 'idle' && host === one.on(1)),
    );
    expect(rows.find(({ host }) => host === one.on(1))?.directory).toBe(again.directory);
  });

  test('a machine on two LANs sees both', async () => {
    const viewer = await lan.machine('viewer', { lans: [1, 2] });
    const [one, two] = [await lan.machine('one', { lans: [1] }), await lan.machine('two', { lans: [2] })];
    await Promise.all([one.opencode(4096), two.opencode(4096)]);
    await using server = await viewer.mcp();
    const rows = await listed(server, (found) => found.length === 2 && found.every(({ state }) => state === 'idle'));
    expect(new Set(rows.map(({ host }) => host))).toEqual(new Set([one.on(1), two.on(2)]));
  });

  test('an interface may come, go and come again', async () => {
    const viewer = await lan.machine('viewer', { lans: [] });
    const one = await lan.machine('one');
    await one.opencode(4096);
    await using server = await viewer.mcp({ args: ['--log-level', 'debug'] });
    const said = (text: string): number => server.stderr.filter((line) => line.includes(text)).length;
    await server.waitForStderr(/source mdns is not available/);
    for (let round = 1; round <= 2; round += 1) {
      await viewer.plug(1, 'eth0');
      await listed(server, ([row]) => row?.state === 'idle');
      await until('the source to be back', () => said('source mdns is available again') === round);
      await viewer.unplug('eth0');
      await until('the source to notice', () => said('source mdns is not available') === round + 1);
    }
  });

  test('without any network it is said once, and nothing else is disturbed', async () => {
    const viewer = await lan.machine('viewer', { lans: [] });
    await using server = await viewer.mcp({ args: ['--log-level', 'debug'], env: { TRANSPORT: 'mdns,local-relay' } });
    for (let call = 0; call < 3; call += 1) await server.call('refresh_instances');
    const said = server.stderr.filter((line) => line.includes('source mdns'));
    expect(said).toEqual([
      'debug source mdns is not available reason="no multicast on this machine: no network interface but loopback has an address"',
    ]);
  });

  test('the first listing waits for the answers', async () => {
    const [viewer, one] = [await lan.machine('viewer'), await lan.machine('one')];
    await one.opencode(4096);
    {
      // It answers questions some time after it listens.
      await using server = await viewer.mcp();
      await listed(server, ([row]) => row?.state === 'idle');
    }
    const sandbox = await viewer.sandbox();
    const settings = ['--transport', 'mdns', '--health-timeout-ms', '15000'];
    const list = viewer.run([process.execPath, SERVER_SCRIPT, 'list', ...settings], sandbox);
    await list.exited;
    expect(list.output).toContain('idle');
  });
});
