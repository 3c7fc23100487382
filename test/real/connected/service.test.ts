import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import {
  CONNECTED_SCRIPT,
  type ConnectedChild,
  connectedEnvironment,
  type ConnectedOptions,
  filesIn,
  startConnected,
} from '../../rig/connected-child.ts';
import type { McpChild } from '../../rig/mcp-child.ts';
import { startMcpChild } from '../../rig/mcp-child.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode-binaries.ts';
import { type Preview, startPreview } from '../../rig/opencode-preview.ts';
import { openSandbox } from '../../rig/opencode-sandbox.ts';
import { startScriptedModel } from '../../rig/scripted-model.ts';
import { needSshd } from '../../rig/sshd.ts';
import { needTmux, openTmux } from '../../rig/tmux.ts';
import { until } from '../../rig/wait.ts';
import { atEnd, endAll, openRelay, type Relay, serverOn, sshOf, stateOf } from './relay-stage.ts';

afterEach(endAll);

/** The person's service, with one session in its directory, and the environment of a wrapper beside it. */
async function openService(registered: 'service' | true = true): Promise<Preview> {
  const model = await startScriptedModel();
  atEnd(() => model.close());
  const preview = await startPreview({ model, registered });
  atEnd(() => preview.close());
  process.stdout.write(`${preview.describe()}\n`);
  await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
  return preview;
}

async function wrapper(preview: Preview, options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const child = await startConnected({
    ...options,
    home: preview.home,
    directory: preview.directory,
    opencode: PREVIEW_OPENCODE,
    env: { XDG_STATE_HOME: join(preview.home, '.local', 'state'), ...options.env },
  });
  atEnd(() => child.close());
  return child;
}

/** Checks by its file that the service goes on in the same process. */
async function expectUntouched(preview: Preview): Promise<void> {
  const { pid } = JSON.parse(await readFile(join(preview.stateDir, 'server.json'), 'utf8')) as { pid: number };
  expect(pid).toBe(preview.pid);
  expect(preview.running).toBe(true);
  expect((await preview.api('/api/health')).status).toBe(200);
}

function run(child: ConnectedChild, ...args: readonly string[]): string {
  const { stdout, stderr } = spawnSync(process.execPath, [CONNECTED_SCRIPT, ...args], {
    env: child.env,
    cwd: child.directory,
    encoding: 'utf8',
  });
  return stdout + stderr;
}

interface Row {
  readonly name: string;
  readonly state: string;
  readonly directory?: string;
}

async function rows(server: McpChild): Promise<readonly Row[]> {
  const { result } = await server.call('instances');
  return (result.structuredContent as { readonly instances: readonly Row[] }).instances;
}

function instanceIn(server: McpChild, directory: string): Promise<string> {
  return until(
    `an instance in ${directory}`,
    async () => (await rows(server)).find((row) => row.directory === directory && row.state === 'idle')?.name,
  );
}

async function relayPassword({ registry }: Relay): Promise<string> {
  const [path] = await until('the password on the relay', async () => {
    const found = (await filesIn(registry)).filter((file) => file.includes('.credentials'));
    return found.length > 0 ? found : undefined;
  });
  return (await readFile(path ?? '', 'utf8')).trim();
}

const basic = (password: string): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`,
});

describe.skipIf(isMissing(PREVIEW_OPENCODE))('on a machine with OpenCode 2', () => {
  test('--headless registers the running service as one entry, and leaves no trace', async () => {
    const preview = await openService();
    const child = await wrapper(preview, { env: { INSTANCE_NAME: 'desk' } });
    const registered = await child.registered();
    expect(registered).toMatchObject({ name: 'desk', port: preview.port, localPort: preview.port });
    expect(registered.cwd).toBeUndefined();
    // No copy of its password, and none of another.
    expect((await filesIn(child.registry)).filter((path) => path.includes('.credentials'))).toEqual([]);
    const server = await startMcpChild({
      args: ['--registry-dir', child.registry, '--transport', 'service,local-relay', '--health-timeout-ms', '15000'],
      env: { HOME: preview.home, XDG_STATE_HOME: join(preview.home, '.local', 'state') },
    });
    atEnd(() => server.close());
    const directory = await instanceIn(server, preview.directory);
    expect((await rows(server)).map(({ name }) => name).toSorted()).toEqual(['desk', directory].toSorted());
    expect(directory).toMatch(/^desk-/);
    const status = run(child, 'status');
    expect(status).toMatch(/idle +\d+ +desk/);
    expect(status).toContain(`the service of OpenCode 2 at ${preview.url}`);
    expect(run(child, 'sessions')).toContain(preview.directory.slice(-12));
    expect(run(child, 'cleanup', '--dry-run')).toContain('Nothing is provably dead.');
    child.kill('SIGTERM');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' });
    await until('the registration to be gone', async () => (await filesIn(child.registry)).length === 0);
    await expectUntouched(preview);
  });

  test('starts the service once if none runs, and leaves it running', async () => {
    const preview = await openService();
    await preview.stop();
    const child = await wrapper(preview);
    await child.registered();
    expect(child.output()).toContain('starting the service of OpenCode 2');
    const file = JSON.parse(await readFile(join(preview.stateDir, 'server.json'), 'utf8')) as { pid: number };
    child.kill('SIGTERM');
    await child.exited;
    expect(existsSync(`/proc/${file.pid}/exe`)).toBe(true);
    process.kill(file.pid, 'SIGTERM');
    await until('the service to end', () => !existsSync(`/proc/${file.pid}/exe`));
  });

  test('a second wrapper waits, and takes the registration over', async () => {
    const preview = await openService();
    const first = await wrapper(preview, { registry: join(preview.home, 'registry') });
    const { id } = await first.registered();
    const second = await wrapper(preview, { registry: first.registry });
    await until('the second to wait', () => second.output().includes(`(pid ${first.pid})`));
    expect((await filesIn(first.registry)).filter((path) => path.endsWith('.json'))).toHaveLength(1);
    first.kill('SIGKILL');
    const taken = await second.registered();
    expect(taken.id).not.toBe(id);
    expect(taken.name).toMatch(/:service$/);
    await expectUntouched(preview);
  });

  test('a service that restarts on another port is registered there', async () => {
    const preview = await openService();
    const child = await wrapper(preview);
    const before = await child.registered();
    await preview.kill9();
    const again = await startPreview({ home: preview.home, directory: preview.directory, registered: true });
    atEnd(() => again.close());
    expect(again.port).not.toBe(before.port);
    await until('the registration to follow', async () => (await child.registered()).port === again.port);
    expect((await child.registered()).id).toBe(before.id);
  });

  describe('through a relay', () => {
    test('a server there drives it with a password that ends with the wrapper; its own password stays here', async (context) => {
      needSshd(context);
      const relay = await openRelay();
      const preview = await openService();
      const child = await wrapper(preview, { env: relay.env });
      await child.registered();
      await sshOf(child);
      const server = await serverOn(relay);
      const instance = await instanceIn(server, preview.directory);
      const sent = await server.call('send', { instance, message: 'echo: through the tunnel' });
      expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'through the tunnel' });
      // The real password is nowhere on the relay.
      const grepped = spawnSync('grep', ['-rlF', preview.password, relay.sshd.home], { encoding: 'utf8' });
      expect(grepped.stdout).toBe('');
      const random = await relayPassword(relay);
      const { relay: there } = (await stateOf(child)) ?? {};
      const health = (): Promise<Response> =>
        fetch(`http://127.0.0.1:${there?.port}/api/health`, { headers: basic(random) });
      expect((await health()).status).toBe(200);
      // It opens nothing but the proxy.
      expect((await fetch(`${preview.url}/api/health`, { headers: basic(random) })).status).toBe(401);
      child.kill('SIGKILL');
      await child.exited;
      await until('the tunnel to be closed', () =>
        health().then(
          () => false,
          () => true,
        ),
      );
      await until('the relay to hold nothing', async () => (await filesIn(relay.registry)).length === 0);
      await expectUntouched(preview);
    });
  });

  test('the terminal is drawn, and its end leaves the service running and no registration', async (context) => {
    needTmux(context);
    const preview = await openService();
    const registry = join(preview.home, 'registry');
    const sandbox = await openSandbox({ home: preview.home, directory: preview.directory });
    atEnd(() => sandbox.close());
    const env = {
      ...connectedEnvironment(sandbox, registry, { opencode: PREVIEW_OPENCODE }),
      XDG_STATE_HOME: join(preview.home, '.local', 'state'),
    };
    await using terminal = await openTmux(env, preview.directory);
    await terminal.type(`clear; ${process.execPath} ${CONNECTED_SCRIPT}`, 'Enter');
    const drawn = await terminal.shows(/Ask anything|Connect a provider/);
    expect(drawn).not.toContain('opencode-connected:');
    await until('a registration', async () => (await filesIn(registry)).some((path) => path.endsWith('.json')));
    // A new home begins with a dialog, which takes the keys.
    await terminal.type('', 'Escape');
    await until('the dialog to be closed', async () => !(await terminal.screen()).includes('Connect a provider'));
    await terminal.type('', 'C-c');
    await until('the registration to be gone', async () => (await filesIn(registry)).length === 0);
    await terminal.type('echo back$((1+1))', 'Enter');
    await terminal.shows(/^back2$/m);
    await expectUntouched(preview);
  });
});
