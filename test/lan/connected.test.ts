import { join } from 'node:path';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { CONNECTED_SCRIPT, connectedEnvironment } from '../rig/connected-child.ts';
import { Lan, type Machine, needNamespaces, type Program } from '../rig/lan.ts';
import type { McpChild } from '../rig/mcp-child.ts';
import { missingForNamespaces } from '../rig/namespaces.ts';
import { isMissing, PREVIEW_OPENCODE } from '../rig/opencode-binaries.ts';
import type { OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { tempDir } from '../rig/temp.ts';
import { listed } from './listing.ts';

interface Connected extends Program {
  readonly sandbox: OpencodeSandbox;
}

async function connected(machine: Machine, args: readonly string[] = [], env = {}): Promise<Connected> {
  const sandbox = await machine.sandbox();
  const environment = { ...connectedEnvironment(sandbox, join(sandbox.home, 'registry')), ...env };
  const argv = [process.execPath, CONNECTED_SCRIPT, '--headless', '--lan', ...args];
  return Object.assign(machine.run(argv, sandbox, environment), { sandbox });
}

function statusOf(machine: Machine, { sandbox }: Connected): Program {
  const environment = connectedEnvironment(sandbox, join(sandbox.home, 'registry'));
  return machine.run([process.execPath, CONNECTED_SCRIPT, 'status'], sandbox, environment);
}

describe('opencode-connected --lan', () => {
  let lan: Lan;
  let viewer: Machine;
  const temps: AsyncDisposable[] = [];

  beforeEach(async (context) => {
    needNamespaces(context);
    lan = await Lan.open();
  });
  afterEach(async () => {
    if (missingForNamespaces() !== undefined) return;
    await lan.close();
    for (const temp of temps.splice(0)) await temp[Symbol.asyncDispose]();
  });

  /** A server on the viewer, with a configuration of which the password is `password`. */
  async function serverWith(rule: object, env: Readonly<Record<string, string>> = {}): Promise<McpChild> {
    const temp = tempDir('lan-viewer');
    temps.push(temp);
    const config = join(temp.path, 'config.json');
    await writeFile(config, JSON.stringify({ credentials: [rule] }), { mode: 0o600 });
    return viewer.mcp({ args: ['--config', config], env });
  }

  test('is locked for others until they add the rule that status prints, and offline at once when it ends', async () => {
    viewer = await lan.machine('viewer');
    const laptop = await lan.machine('laptop');
    const wrapper = await connected(laptop, ['--lan-port', '4777']);
    await wrapper.says(/answers at http:\/\/127\.0\.0\.1:4777;/);
    const second = await connected(laptop, [], { OPENCODE_LAN_PORT: '4777' });
    await second.exited;
    expect(second.output).toContain('cannot listen on port 4777: another process does, or this user may not');
    await using without = await viewer.mcp({ env: { OPENCODE_SERVER_PASSWORD: 'not for the LAN' } });
    // One entry, though it is seen by IPv4 and by IPv6.
    const [row] = await listed(without, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
    expect(row).toMatchObject({ name: 'laptop-project@laptop', host: 'laptop' });
    expect(row?.via).toContain(laptop.on(1));

    const status = statusOf(laptop, wrapper);
    await status.exited;
    const [, text = ''] = /^ +(\{ "source": "mdns".*\})$/m.exec(status.output) ?? [];
    const [, file = ''] = /cat\s+(\S+)/.exec(status.output) ?? [];
    const password = (await readFile(file, 'utf8')).trim();
    const rule = JSON.parse(text) as { readonly password: object };
    expect(rule).toEqual({ source: 'mdns', host: 'laptop', password: { file: '~/.secrets/laptop' } });

    // No round would find out within the test that it has ended.
    await using server = await serverWith({ ...rule, password }, { DISCOVERY_INTERVAL_MS: '3600000' });
    await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
    const created = await server.call('create_session', { instance: 'laptop-project@laptop', title: 'over the LAN' });
    expect(created.text).toContain('over the LAN');
    await wrapper.kill();
    await listed(server, ([one]) => one?.state === 'offline');

    // Its password stays, for others have it.
    const kept = join(wrapper.sandbox.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp', 'lan', 'password');
    expect([(await stat(kept)).mode & 0o777, password.length]).toEqual([0o600, 43]);
    const environment = connectedEnvironment(wrapper.sandbox, join(wrapper.sandbox.home, 'registry'));
    const again = laptop.run([process.execPath, CONNECTED_SCRIPT, '--headless', '--lan'], wrapper.sandbox, environment);
    await again.says(/answers at/);
    expect(await readFile(kept, 'utf8')).toBe(`${password}\n`);
  });

  test('works by IPv6 link-local addresses only', async () => {
    viewer = await lan.machine('viewer', { families: 'v6' });
    const laptop = await lan.machine('laptop', { families: 'v6' });
    const wrapper = await connected(laptop, [], { OPENCODE_SERVER_PASSWORD: 'chosen' });
    await wrapper.says(/answers at/);
    await using server = await serverWith({ source: 'mdns', host: 'laptop', password: 'chosen' });
    const [row] = await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
    expect(row?.via).toContain(`[${await laptop.linkLocal()}]`);
    const created = await server.call('create_session', { instance: 'laptop-project@laptop', title: 'by IPv6' });
    expect(created.text).toContain('by IPv6');
  });

  test('is found on a LAN that it joins later, and after its interface was replaced', async () => {
    viewer = await lan.machine('viewer', { lans: [2] });
    // By IPv6 the new interface would show as another.
    const laptop = await lan.machine('laptop', { families: 'v4' });
    const wrapper = await connected(laptop);
    await wrapper.says(/answers at/);
    await using server = await viewer.mcp();
    await laptop.plug(2, 'eth1');
    const [later] = await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
    expect(later?.via).toContain(laptop.on(2));
    await laptop.replug(1, 'eth0');
    // It knows nothing yet.
    viewer = await lan.machine('second', { families: 'v4' });
    await using late = await viewer.mcp();
    const [row] = await listed(late, (rows) => rows[0]?.state === 'locked');
    expect(row?.via).toContain(laptop.on(1));
  });

  test.skipIf(isMissing(PREVIEW_OPENCODE))(
    'proxies the service of OpenCode 2 under a password of its own, and leaves it running',
    async () => {
      viewer = await lan.machine('viewer');
      const laptop = await lan.machine('laptop');
      const wrapper = await connected(laptop, [], { OPENCODE_BIN: PREVIEW_OPENCODE });
      await wrapper.says(/laptop:service: the service of OpenCode/);
      await using without = await viewer.mcp();
      const [locked] = await listed(without, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
      expect(locked).toMatchObject({ name: 'laptop:service@laptop', host: 'laptop' });
      const status = statusOf(laptop, wrapper);
      await status.exited;
      const [, file = ''] = /cat\s+(\S+)/.exec(status.output) ?? [];
      const password = (await readFile(file, 'utf8')).trim();
      const stateDir = join(wrapper.sandbox.env['XDG_STATE_HOME'] ?? '', 'opencode');
      expect(password).not.toBe((await readFile(join(stateDir, 'password'), 'utf8')).trim());
      await using server = await serverWith({ source: 'mdns', host: 'laptop', password });
      await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
      await wrapper.kill();
      await listed(server, ([row]) => row?.state === 'offline');
      const { pid } = JSON.parse(await readFile(join(stateDir, 'server.json'), 'utf8')) as { pid: number };
      expect(process.kill(pid, 0)).toBe(true);
    },
  );

  test.each([
    { name: 'without a password', args: ['--no-password'], env: {}, says: /--lan with --no-password: everyone/ },
    {
      name: 'on no interface',
      args: [],
      env: { OPENCODE_MDNS_INTERFACES: 'none' },
      says: /--lan with OPENCODE_MDNS_INTERFACES=none/,
    },
    {
      name: 'on a port that clients refuse',
      args: ['--lan-port', '6000'],
      env: {},
      says: /OPENCODE_LAN_PORT: port 6000 is on the web's list of blocked ports/,
    },
  ])('refuses $name, and starts nothing', async ({ args, env, says }) => {
    const laptop = await lan.machine('laptop');
    const wrapper = await connected(laptop, args, env);
    await wrapper.exited;
    expect(wrapper.output).toMatch(says);
    expect(wrapper.output).not.toContain('listening');
  });
});
