import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { PAGE_HEADER, PAGE_PREFIX } from '../../src/page/contract.ts';
import { startFakeNtfy } from '../rig/fake-ntfy.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { SELF } from './stage.ts';
import { tailscaled } from './tailscaled.ts';

interface Command {
  readonly log: () => string;
  readonly pid: number;
  /** Resolves with its exit code. */
  readonly ended: Promise<number | null>;
  /** Ends it with SIGTERM, and resolves with its exit code. */
  end(): Promise<number | null>;
}

/** The built program, with nothing of this process's environment. */
async function start(args: readonly string[], env: Readonly<Record<string, string>>): Promise<Command> {
  const child = spawn(process.execPath, [SERVER_SCRIPT, 'node', ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await once(child, 'spawn');
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  child.stdout.setEncoding('utf8').on('data', (text: string) => (log += `STDOUT ${text}`));
  const ended = once(child, 'exit').then(([code]) => code as number | null);
  onTestFinished(() => void child.kill('SIGKILL'));
  return {
    log: () => log,
    pid: child.pid ?? 0,
    ended,
    end() {
      child.kill('SIGTERM');
      return within(ended, 'the node service to end');
    },
  };
}

describe('opencode-mcp node', () => {
  test('waits for tailscaled and logs it, serves once it runs, and ends on SIGTERM', async () => {
    await using temp = tempDir('opencode-mcp-node-command');
    await using opencode = await startFakeOpencode({ password: 'pa55word' });
    const registry = await openRegistry(join(temp.path, 'registry'));
    await registry.add(
      { name: 'one', port: opencode.port, cwd: opencode.directory, id: 'one' },
      { password: 'pa55word' },
    );
    const port = await freePort();
    const socketPath = join(temp.path, 'tailscaled.sock');
    const command = await start(['--registry-dir', registry.path], {
      HOME: temp.path,
      TMPDIR: temp.tmp,
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
    });
    await until('a word about tailscaled', () => command.log().includes('not in the tailnet, so nothing is served'));
    expect(command.log()).toContain(socketPath);
    const daemon = await tailscaled(socketPath);
    await until('the address', () => command.log().includes('listening'));
    const listed = await until('the instance', async () => {
      const response = await fetch(`http://${SELF}:${port}${LIST_PATH}`);
      const { instances } = (await response.json()) as { readonly instances: readonly { readonly path: string }[] };
      return instances[0];
    });
    const health = await fetch(`http://${SELF}:${port}${listed.path}/global/health`);
    expect(await health.json()).toMatchObject({ healthy: true });
    expect(command.log()).toMatch(
      /info admitted caller="ada@example.com on laptop.tailnet.test" role="drive" method="GET"/,
    );
    await until('the bus to be listened to', () => daemon.buses.size > 0);
    daemon.close();
    await until('the end of the tailnet', () => command.log().split('not in the tailnet').length === 3);
    await expect(fetch(`http://${SELF}:${port}${LIST_PATH}`)).rejects.toThrow();
    expect(await command.end()).toBe(0);
    expect(command.log()).not.toMatch(/STDOUT|pa55word/);
  });

  test('notifies of permission requests, with a link to the page', async () => {
    await using temp = tempDir('opencode-mcp-node-command');
    await using opencode = await startFakeOpencode();
    await using ntfy = await startFakeNtfy();
    const registry = await openRegistry(join(temp.path, 'registry'));
    await registry.add({ name: 'one', port: opencode.port, cwd: opencode.directory, id: 'one' });
    const port = await freePort();
    const socketPath = join(temp.path, 'tailscaled.sock');
    const daemon = await tailscaled(socketPath);
    const config = join(temp.path, 'config.json');
    const channel = { type: 'ntfy', url: ntfy.url, topic: 'agents' };
    await writeFile(config, JSON.stringify({ notify: { channels: [channel] } }), { mode: 0o600 });
    const command = await start(['--registry-dir', registry.path, '--config', config], {
      HOME: temp.path,
      TMPDIR: temp.tmp,
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
    });
    await until('the address', () => command.log().includes('listening'));
    const { id } = opencode.addSession({ title: 'Fix the build' });
    opencode.state.begin(id, 'Go');
    const asked = opencode.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
    const message = await until('the notification', () => ntfy.messages[0]);
    expect(message).toMatchObject({ title: 'Permission: Fix the build', click: expect.any(String) as string });
    const [base, ...path] = message.click?.split('/#/') ?? [];
    expect(base).toBe(`http://self.tailnet.test:${port}`);
    expect(path).toEqual([`s/one/${id}/${asked.id}`]);
    expect(await command.end()).toBe(0);
    daemon.close();
  });

  test('as a unit that may not write its home, it keeps its state in the directory that systemd names', async () => {
    await using temp = tempDir('opencode-mcp-node-command');
    await using opencode = await startFakeOpencode({ reply: () => 'done' });
    const registry = await openRegistry(join(temp.path, 'registry'));
    await registry.add({ name: 'one', port: opencode.port, cwd: opencode.directory, id: 'one' });
    const port = await freePort();
    const socketPath = join(temp.path, 'tailscaled.sock');
    const daemon = await tailscaled(socketPath);
    const command = await start(['--registry-dir', registry.path], {
      // No folder can be made below it.
      HOME: registry.path + '/one.json',
      STATE_DIRECTORY: join(temp.path, 'state'),
      TMPDIR: temp.tmp,
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
      ...NO_MULTICAST,
    });
    await until('the address', () => command.log().includes('listening'));
    const origin = `http://${SELF}:${port}`;
    const sent = await fetch(`${origin}${PAGE_PREFIX}v1/send`, {
      method: 'POST',
      headers: { [PAGE_HEADER]: '1', origin, 'content-type': 'application/json' },
      body: JSON.stringify({ instance: 'one', session: null, message: 'hello', requestId: 'from-the-page' }),
    });
    expect(await sent.json()).toMatchObject({ text: expect.stringMatching(/^Sent to/) as string });
    expect(opencode.state.prompts).toHaveLength(1);
    const kept = (): Promise<string[]> => readdir(join(temp.path, 'state'));
    expect(await kept()).toContain('requests');
    await until('the record', async () => (await kept()).includes('record.jsonl'));
    expect(await command.end()).toBe(0);
    daemon.close();
  });

  test('exits on wrong settings with the code for which systemd does not restart it', async () => {
    await using temp = tempDir('opencode-mcp-node-command');
    const command = await start([], { HOME: temp.path, TMPDIR: temp.tmp, OPENCODE_NODE_PORT: '0' });
    expect(await within(command.ended, 'the end')).toBe(2);
    expect(command.log()).toContain('OPENCODE_NODE_PORT: expected');
  });
});
