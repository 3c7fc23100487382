import { join } from 'node:path';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { describe, expect, onTestFinished, test, type TestContext } from 'vitest';

import { CONNECTED_SCRIPT, connectedEnvironment } from '../rig/programs/connected-child.ts';
import { Lan, type Machine, needNamespaces, type Program } from '../rig/network/lan.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { isMissing, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import type { OpencodeSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { tempDir } from '../rig/temp.ts';
import { listed } from './listing.ts';

interface Connected extends Program {
  readonly sandbox: OpencodeSandbox;
}

function environmentOf(sandbox: OpencodeSandbox): Readonly<Record<string, string>> {
  return connectedEnvironment(sandbox, join(sandbox.home, 'registry'));
}

async function connected(machine: Machine, args: readonly string[] = [], env = {}): Promise<Connected> {
  const sandbox = await machine.sandbox();
  const argv = [process.execPath, CONNECTED_SCRIPT, '--headless', '--lan', ...args];
  return Object.assign(machine.run(argv, sandbox, { ...environmentOf(sandbox), ...env }), { sandbox });
}

/** What `opencode-connected status` prints. */
async function statusOf(machine: Machine, { sandbox }: Connected): Promise<string> {
  const status = machine.run([process.execPath, CONNECTED_SCRIPT, 'status'], sandbox, environmentOf(sandbox));
  await status.exited;
  return status.output;
}

/** The content of the password file that `status` names. */
async function passwordIn(status: string): Promise<string> {
  return (await readFile(/cat\s+(\S+)/.exec(status)?.[1] ?? '', 'utf8')).trim();
}

async function openLan(context: TestContext): Promise<Lan> {
  needNamespaces(context);
  const lan = await Lan.open();
  onTestFinished(() => lan.close());
  return lan;
}

/** A server on a machine, with one credential rule. */
async function serverWith(
  machine: Machine,
  rule: object,
  env: Readonly<Record<string, string>> = {},
): Promise<McpChild> {
  const temp = tempDir('lan-viewer');
  onTestFinished(() => temp.close());
  const config = join(temp.path, 'config.json');
  await writeFile(config, JSON.stringify({ credentials: [rule] }), { mode: 0o600 });
  return machine.mcp({ args: ['--config', config], env });
}

describe('opencode-connected --lan', () => {
  test('is locked on other machines until they add the rule that status prints, and offline as soon as the wrapper ends', async (context) => {
    const lan = await openLan(context);
    const [viewer, laptop] = [await lan.machine('viewer'), await lan.machine('laptop')];
    const open = await connected(laptop, ['--no-password']);
    await open.exited;
    expect(open.output).toMatch(/--lan with --no-password: everyone/);
    expect(open.output).not.toContain('listening');
    const wrapper = await connected(laptop, ['--lan-port', '4777']);
    await wrapper.says(/answers at http:\/\/127\.0\.0\.1:4777;/);
    const second = await connected(laptop, [], { OPENCODE_LAN_PORT: '4777' });
    await second.exited;
    expect(second.output).toContain('cannot listen on port 4777: another process does, or this user may not');
    await using without = await viewer.mcp({ env: { OPENCODE_SERVER_PASSWORD: 'not for the LAN' } });
    // One entry, although it is reachable by IPv4 and by IPv6.
    const [row] = await listed(without, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
    expect(row).toMatchObject({ name: 'laptop-project@laptop', host: 'laptop' });
    expect(row?.via).toContain(laptop.on(1));

    const status = await statusOf(laptop, wrapper);
    const password = await passwordIn(status);
    const rule = JSON.parse(/^ +(\{ "source": "mdns".*\})$/m.exec(status)?.[1] ?? '') as object;
    expect(rule).toEqual({ source: 'mdns', host: 'laptop', password: { file: '~/.secrets/laptop' } });

    // An hour, so that no scan finds out that it has ended.
    await using server = await serverWith(viewer, { ...rule, password }, { DISCOVERY_INTERVAL_MS: '3600000' });
    await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
    const created = await server.call('create_session', { instance: 'laptop-project@laptop', title: 'over the LAN' });
    expect(created.text).toContain('over the LAN');
    await wrapper.kill();
    await listed(server, ([one]) => one?.state === 'offline');

    // The password is kept, because other machines store it.
    const kept = join(wrapper.sandbox.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp', 'lan', 'password');
    expect([(await stat(kept)).mode & 0o777, password.length]).toEqual([0o600, 43]);
    const argv = [process.execPath, CONNECTED_SCRIPT, '--headless', '--lan'];
    const again = laptop.run(argv, wrapper.sandbox, environmentOf(wrapper.sandbox));
    await again.says(/answers at/);
    expect(await readFile(kept, 'utf8')).toBe(`${password}\n`);
  });

  test('works by IPv6 link-local addresses only', async (context) => {
    const lan = await openLan(context);
    const viewer = await lan.machine('viewer', { families: 'v6' });
    const laptop = await lan.machine('laptop', { families: 'v6' });
    const wrapper = await connected(laptop, [], { OPENCODE_SERVER_PASSWORD: 'chosen' });
    await wrapper.says(/answers at/);
    await using server = await serverWith(viewer, { source: 'mdns', host: 'laptop', password: 'chosen' });
    const [row] = await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
    expect(row?.via).toContain(`[${await laptop.linkLocal()}]`);
    const created = await server.call('create_session', { instance: 'laptop-project@laptop', title: 'by IPv6' });
    expect(created.text).toContain('by IPv6');
  });

  test('is found on a LAN that its machine joins later, and after the interface was replaced', async (context) => {
    const lan = await openLan(context);
    const viewer = await lan.machine('viewer', { lans: [2] });
    // By IPv6 the new interface would show as another one.
    const laptop = await lan.machine('laptop', { families: 'v4' });
    const wrapper = await connected(laptop);
    await wrapper.says(/answers at/);
    await using server = await viewer.mcp();
    await laptop.plug(2, 'eth1');
    const [later] = await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
    expect(later?.via).toContain(laptop.on(2));
    await laptop.replug(1, 'eth0');
    // A viewer that has received nothing before.
    const second = await lan.machine('second', { families: 'v4' });
    await using late = await second.mcp();
    const [row] = await listed(late, (rows) => rows[0]?.state === 'locked');
    expect(row?.via).toContain(laptop.on(1));
  });

  test.skipIf(isMissing(PREVIEW_OPENCODE))(
    'proxies the service of OpenCode 2 with another password, and leaves it running',
    async (context) => {
      const lan = await openLan(context);
      const [viewer, laptop] = [await lan.machine('viewer'), await lan.machine('laptop')];
      const wrapper = await connected(laptop, [], { OPENCODE_BIN: PREVIEW_OPENCODE });
      await wrapper.says(/laptop:service: the service of OpenCode/);
      await using without = await viewer.mcp();
      const [locked] = await listed(without, (rows) => rows.length === 1 && rows[0]?.state === 'locked');
      expect(locked).toMatchObject({ name: 'laptop:service@laptop', host: 'laptop' });
      const password = await passwordIn(await statusOf(laptop, wrapper));
      const stateDir = join(wrapper.sandbox.env['XDG_STATE_HOME'] ?? '', 'opencode');
      expect(password).not.toBe((await readFile(join(stateDir, 'password'), 'utf8')).trim());
      await using server = await serverWith(viewer, { source: 'mdns', host: 'laptop', password });
      await listed(server, (rows) => rows.length === 1 && rows[0]?.state === 'idle');
      await wrapper.kill();
      await listed(server, ([row]) => row?.state === 'offline');
      const { pid } = JSON.parse(await readFile(join(stateDir, 'server.json'), 'utf8')) as { pid: number };
      expect(process.kill(pid, 0)).toBe(true);
    },
  );
});
