import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openTerminalStage, WRAPPER } from '../../connected/terminal-stage.ts';
import {
  atEnd,
  endAll,
  nothingOnRelay,
  openRelay,
  sshOf,
  startWrapper,
  stateOf,
} from '../../connected/wrapper-stage.ts';
import { announce } from '../../rig/announce.ts';
import {
  CONNECTED_SCRIPT,
  type ConnectedChild,
  type ConnectedOptions,
  filesIn,
} from '../../rig/programs/connected-child.ts';
import { startMcpChild } from '../../rig/programs/mcp-child.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../../rig/opencode/opencode-preview.ts';
import { startScriptedModel } from '../../rig/model/scripted-model.ts';
import { needSshd } from '../../rig/network/sshd.ts';
import { needTmux } from '../../rig/programs/tmux.ts';
import { until } from '../../rig/wait.ts';
import { listed, rows, serverOn } from './servers.ts';

const basic = (password: string): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`,
});

describe.skipIf(isMissing(PREVIEW_OPENCODE))('opencode-connected beside the service of OpenCode 2', () => {
  let preview: Preview;
  let options: ConnectedOptions;

  beforeAll(async () => {
    const model = await startScriptedModel();
    atEnd(() => model.close());
    preview = await startPreview({ model, registered: true });
    atEnd(() => preview.close());
    announce(preview);
    await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
    options = {
      home: preview.home,
      directory: preview.directory,
      opencode: PREVIEW_OPENCODE,
      env: { XDG_STATE_HOME: join(preview.home, '.local', 'state') },
    };
  });
  afterAll(endAll);

  async function pidOfService(): Promise<number> {
    const file = JSON.parse(await readFile(join(preview.stateDir, 'server.json'), 'utf8')) as { pid: number };
    return file.pid;
  }

  /** Checks by its file that the service goes on in the same process. */
  async function expectUntouched(): Promise<void> {
    expect(await pidOfService()).toBe(preview.pid);
    expect(preview.running).toBe(true);
    expect((await preview.api('/api/health')).status).toBe(200);
  }

  function run(child: ConnectedChild, ...args: readonly string[]): string {
    const { env, directory: cwd } = child;
    const { stdout, stderr } = spawnSync(process.execPath, [CONNECTED_SCRIPT, ...args], { env, cwd, encoding: 'utf8' });
    return stdout + stderr;
  }

  test('--headless registers the running service as one entry, and leaves no trace', async () => {
    const child = await startWrapper({ ...options, env: { ...options.env, INSTANCE_NAME: 'desk' } });
    const registered = await child.registered();
    expect(registered).toMatchObject({ name: 'desk', port: preview.port, localPort: preview.port });
    expect(registered.cwd).toBeUndefined();
    // Neither a copy of its password nor another one.
    expect((await filesIn(child.registry)).filter((path) => path.includes('.credentials'))).toEqual([]);
    await using server = await startMcpChild({
      args: ['--registry-dir', child.registry, '--transport', 'service,local-relay', '--health-timeout-ms', '15000'],
      env: { HOME: preview.home, ...options.env },
    });
    const name = await listed(server, preview.directory);
    expect(name).toMatch(/^desk-/);
    expect((await rows(server)).map((row) => row.name).toSorted()).toEqual(['desk', name]);
    const status = run(child, 'status');
    expect(status).toMatch(/idle +\d+ +desk/);
    expect(status).toContain(`the service of OpenCode 2 at ${preview.url}`);
    expect(run(child, 'sessions')).toContain(preview.directory.slice(-12));
    expect(run(child, 'cleanup', '--dry-run')).toContain('Nothing is provably dead.');
    child.kill('SIGTERM');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' });
    await until('the registration to be gone', async () => (await filesIn(child.registry)).length === 0);
    await expectUntouched();
  });

  test('a server on the relay drives the service with a password that ends with the wrapper, and does not get its own password', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    const child = await startWrapper({ ...options, env: { ...options.env, ...relay.env } });
    await child.registered();
    await sshOf(child);
    const server = await serverOn(relay);
    const instance = await listed(server, preview.directory);
    const sent = await server.call('send', { instance, message: 'echo: through the tunnel' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'through the tunnel' });
    // The real password is nowhere on the relay.
    const grepped = spawnSync('grep', ['-rlF', preview.password, relay.sshd.home], { encoding: 'utf8' });
    expect(grepped.stdout).toBe('');
    const passwordFile = (await filesIn(relay.registry)).find((file) => file.includes('.credentials')) ?? '';
    const random = (await readFile(passwordFile, 'utf8')).trim();
    const { relay: tunnel } = await stateOf(child);
    const health = (url: string): Promise<Response> => fetch(`${url}/api/health`, { headers: basic(random) });
    const throughTunnel = (): Promise<Response> => health(`http://127.0.0.1:${tunnel?.port}`);
    expect((await throughTunnel()).status).toBe(200);
    // It opens nothing but the proxy.
    expect((await health(preview.url)).status).toBe(401);
    child.kill('SIGKILL');
    await child.exited;
    await until('the tunnel to be closed', () =>
      throughTunnel().then(
        () => false,
        () => true,
      ),
    );
    await nothingOnRelay(relay);
    await expectUntouched();
  });

  test('the wrapper opens the terminal; when it ends, the service runs on and no registration is left', async (context) => {
    needTmux(context);
    const { terminal, registry, registered } = await openTerminalStage({
      ...options,
      registry: join(preview.home, 'terminal-registry'),
    });
    await terminal.type(`clear; ${WRAPPER}`, 'Enter');
    const drawn = await terminal.shows(/Ask anything|Connect a provider/);
    expect(drawn).not.toContain('opencode-connected:');
    await registered();
    // A new home begins with a dialog, which takes the keys.
    await terminal.type('', 'Escape');
    await until('the dialog to be closed', async () => !(await terminal.screen()).includes('Connect a provider'));
    await terminal.type('', 'C-c');
    await until('the registration to be gone', async () => (await filesIn(registry)).length === 0);
    await terminal.type('echo back$((1+1))', 'Enter');
    await terminal.shows(/^back2$/m);
    await expectUntouched();
  });

  test('the wrapper starts the service once if none runs, and leaves it running', async () => {
    await preview.stop();
    const child = await startWrapper(options);
    await child.registered();
    expect(child.output()).toContain('starting the service of OpenCode 2');
    const pid = await pidOfService();
    child.kill('SIGTERM');
    await child.exited;
    expect(existsSync(`/proc/${pid}/exe`)).toBe(true);
    process.kill(pid, 'SIGTERM');
    await until('the service to end', () => !existsSync(`/proc/${pid}/exe`));
  });
});
