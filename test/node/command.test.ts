import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { PAGE_HEADER, PAGE_PREFIX } from '../../src/page/contract.ts';
import { type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { startFakeNtfy } from '../rig/fake/fake-ntfy.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { runShell, type ShellRun } from '../rig/programs/shell-command.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { SELF } from './stage.ts';
import { tailscaled } from './tailscaled.ts';

/** A machine with one registered opencode. */
async function openMachine(options: FakeOptions = {}) {
  const temp = tempDir('opencode-mcp-node-command');
  const opencode = await startFakeOpencode(options);
  onTestFinished(async () => {
    await opencode.close();
    await temp.close();
  });
  const registry = await openRegistry(join(temp.path, 'registry'));
  await registry.add({ name: 'one', port: opencode.port, cwd: opencode.directory, id: 'one' }, options);
  const port = await freePort();
  const socketPath = join(temp.path, 'tailscaled.sock');
  return {
    folder: temp.path,
    opencode,
    port,
    socketPath,
    /** Starts the built node service. */
    start(args: readonly string[] = [], env: Readonly<Record<string, string>> = {}) {
      const run = runShell(['node', '--registry-dir', registry.path, ...args], {
        PATH: process.env['PATH'] ?? '',
        HOME: temp.path,
        TMPDIR: temp.tmp,
        TAILSCALE_SOCKET: socketPath,
        OPENCODE_NODE_PORT: String(port),
        ...NO_MULTICAST,
        ...env,
      });
      onTestFinished(() => run.kill('SIGKILL'));
      return run;
    },
  };
}

/** Ends the service as systemd does, and resolves with its exit code. */
async function end(run: ShellRun): Promise<number | null> {
  run.kill('SIGTERM');
  return await within(run.ended, 'the node service to end');
}

test('the node service logs that it waits for tailscaled, serves once tailscaled runs, and ends on SIGTERM', async () => {
  const password = 'pa55word';
  const { port, socketPath, start } = await openMachine({ password });
  const run = start();
  const untilLogged = (part: string, times = 1): Promise<unknown> =>
    until(`"${part}" to be logged`, () => run.stderr().split(part).length > times);
  await untilLogged('not in the tailnet, so nothing is served');
  expect(run.stderr()).toContain(socketPath);
  const daemon = await tailscaled(socketPath);
  await untilLogged('listening');
  const listed = await until('the instance', async () => {
    const response = await fetch(`http://${SELF}:${port}${LIST_PATH}`);
    const { instances } = (await response.json()) as { readonly instances: readonly { readonly path: string }[] };
    return instances[0];
  });
  const health = await fetch(`http://${SELF}:${port}${listed.path}/global/health`);
  expect(await health.json()).toMatchObject({ healthy: true });
  expect(run.stderr()).toMatch(
    /info admitted caller="ada@example.com on laptop.tailnet.test" role="drive" method="GET"/,
  );
  await until('the service to follow the bus', () => daemon.buses.size > 0);
  daemon.close();
  await untilLogged('not in the tailnet', 2);
  await expect(fetch(`http://${SELF}:${port}${LIST_PATH}`)).rejects.toThrow();
  expect(await end(run)).toBe(0);
  expect(run.stdout()).toBe('');
  expect(run.stderr()).not.toContain(password);
});

test('a unit without a writable home keeps its state in systemd’s folder, and notifies with links to the page', async () => {
  const { folder, opencode, port, socketPath, start } = await openMachine({ reply: () => 'done' });
  await using ntfy = await startFakeNtfy();
  await tailscaled(socketPath);
  const config = join(folder, 'config.json');
  const channel = { type: 'ntfy', url: ntfy.url, topic: 'agents' };
  await writeFile(config, JSON.stringify({ notify: { channels: [channel] } }), { mode: 0o600 });
  const state = join(folder, 'state');
  // The home is a file, so no folder can be created in it.
  const run = start(['--config', config], { HOME: config, STATE_DIRECTORY: state });
  await until('the service to listen', () => run.stderr().includes('listening'));
  const origin = `http://${SELF}:${port}`;
  const sent = await fetch(`${origin}${PAGE_PREFIX}v1/send`, {
    method: 'POST',
    headers: { [PAGE_HEADER]: '1', origin, 'content-type': 'application/json' },
    body: JSON.stringify({ instance: 'one', session: null, message: 'hello', requestId: 'from-the-page' }),
  });
  expect(await sent.json()).toMatchObject({ text: expect.stringMatching(/^Sent to/) as string });
  expect(opencode.state.prompts).toHaveLength(1);
  expect(await readdir(state)).toContain('requests');
  await until('the record file', async () => (await readdir(state)).includes('record.jsonl'));

  const { id } = opencode.addSession({ title: 'Fix the build' });
  opencode.state.begin(id, 'Go');
  const permission = opencode.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
  const message = await until('the notification', () =>
    ntfy.messages.find(({ title }) => title === 'Permission: Fix the build'),
  );
  expect(message.click).toBe(`http://self.tailnet.test:${port}/#/s/one/${id}/${permission.id}`);
  expect(await end(run)).toBe(0);
});

test('the node service exits on wrong settings with the code on which systemd does not restart it', async () => {
  const { start } = await openMachine();
  const run = start([], { OPENCODE_NODE_PORT: '0' });
  expect(await within(run.ended, 'the node service to end')).toBe(2);
  expect(run.stderr()).toContain('OPENCODE_NODE_PORT: expected');
});
