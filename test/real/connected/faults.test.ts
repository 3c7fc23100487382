import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { needRoot, run } from '../../discovery/as-root.ts';
import { announce } from '../../rig/announce.ts';
import { type ConnectedChild, type ConnectedOptions, filesIn, startConnected } from '../../rig/connected-child.ts';
import { type McpChild, startMcpChild } from '../../rig/mcp-child.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { startScriptedModel } from '../../rig/scripted-model.ts';
import { needSshd, type Sshd, startSshd } from '../../rig/sshd.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';

const closers: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

interface Relay {
  readonly sshd: Sshd;
  /** On the relay. */
  readonly registry: string;
  readonly env: Readonly<Record<string, string>>;
}

interface State {
  readonly pid: number;
  readonly opencodePid: number;
  readonly sshPid?: number;
  readonly relay?: { readonly kind: string; readonly reason?: string };
}

async function openRelay(): Promise<Relay> {
  const sshd = await startSshd();
  closers.push(() => sshd.close());
  announce(sshd);
  const registry = join(sshd.home, 'registry');
  return { sshd, registry, env: { RELAY_SSH_CMD: sshd.relaySshCommand, RELAY_REMOTE_REGISTRY_DIR: registry } };
}

async function connected(relay: Relay, options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const child = await startConnected({ ...options, env: { ...relay.env, ...options.env } });
  closers.push(() => child.close());
  await child.registered();
  return child;
}

async function stateOf(child: ConnectedChild): Promise<State | undefined> {
  for (const path of await filesIn(join(child.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp', 'connected'))) {
    const state: State = JSON.parse((await readFile(path, 'utf8').catch(() => '')) || '{}');
    if (state.pid === child.pid) return state;
  }
  return undefined;
}

/** Resolves with the ssh that holds a connection; another than `not`. */
function sshOf(child: ConnectedChild, not?: number, limitMs?: number): Promise<number> {
  return until(
    'a connection to the relay',
    async () => {
      const state = await stateOf(child);
      return state?.relay?.kind === 'connected' && state.sshPid !== not ? state.sshPid : undefined;
    },
    limitMs,
  );
}

async function registrations({ registry }: Relay): Promise<string[]> {
  return (await filesIn(registry)).filter((path) => path.endsWith('.json'));
}

/** The MCP server as it runs on the relay, and what it can do there. */
async function answersOnRelay(relay: Relay, message: string): Promise<void> {
  await using server: McpChild = await startMcpChild({
    args: ['--registry-dir', relay.registry, '--health-timeout-ms', '15000'],
    env: { HOME: relay.sshd.home },
  });
  const instance = await until('the relay to list it', async () => {
    const { result } = await server.call('instances');
    const rows = (result.structuredContent as { instances: Array<{ name: string; state: string }> }).instances;
    expect(rows.length).toBeLessThan(2);
    return rows.find(({ state }) => state === 'idle')?.name;
  });
  const sent = await server.call('send', { instance, message: `echo: ${message}` });
  expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: message });
}

/** By its own end: nothing here, nothing there. */
async function endsClean(relay: Relay, child: ConnectedChild): Promise<void> {
  child.kill('SIGTERM');
  await child.exited;
  await until('no file to be left on the relay', async () => {
    const files = await filesIn(relay.registry);
    return files.every((path) => path.endsWith('filler'));
  });
  await until('no session to be left', async () => (await relay.sshd.sessionProcesses()).length === 0);
  await until('nothing to be left here', async () => (await child.left()).length === 0);
}

describe.skipIf(isMissing(PINNED_OPENCODE))('a relay that fails', () => {
  test('half-open: a stopped ssh is given up, and the instance is back', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await using model = await startScriptedModel();
    const child = await connected(relay, { model });
    const ssh = await sshOf(child);
    process.kill(ssh, 'SIGSTOP');
    await sshOf(child, ssh, 110_000);
    await answersOnRelay(relay, 'back');
    expect(await registrations(relay)).toHaveLength(1);
    await endsClean(relay, child);
  });

  test('the wrapper is killed while its ssh is stopped: no ssh is left', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    const child = await connected(relay);
    process.kill(await sshOf(child), 'SIGSTOP');
    child.kill('SIGKILL');
    await child.exited;
    await until('nothing to be left here', async () => (await child.left()).length === 0);
  });

  const disks = [
    ['read-only', 'ro,size=256k,mode=700'],
    ['full', 'size=16k,mode=700'],
  ] as const;
  test.for(disks)(
    'a registry directory that is %s is told, and opencode is there once it is not',
    async ([what, options], context) => {
      needSshd(context);
      needRoot(context);
      const relay = await openRelay();
      await using model = await startScriptedModel();
      await mkdir(relay.registry, { mode: 0o700 });
      run('mount', '-t', 'tmpfs', '-o', options, 'tmpfs', relay.registry);
      closers.push(async () => run('umount', '-l', relay.registry));
      const filler = join(relay.registry, 'filler');
      if (what === 'full') await writeFile(filler, Buffer.alloc(128 * 1024)).catch(() => {});
      const child = await connected(relay, { model });
      expect(child.output()).toMatch(
        /no connection to the relay: the relay: cannot write .*(?:Read-only|No space left)/,
      );
      if (what === 'full') await rm(filler);
      else run('mount', '-o', 'remount,rw', relay.registry);
      await sshOf(child);
      await answersOnRelay(relay, what);
      await endsClean(relay, child);
    },
  );

  test('connections lost in a row: one registration, one session', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await using model = await startScriptedModel();
    const child = await connected(relay, { model });
    let ssh = await sshOf(child);
    for (let lost = 1; lost <= 5; lost += 1) {
      process.kill(ssh, 'SIGKILL');
      ssh = await sshOf(child, ssh, 100_000);
    }
    await answersOnRelay(relay, 'still here');
    expect(await registrations(relay)).toHaveLength(1);
    await endsClean(relay, child);
  });

  test('twenty starts and ends in a row leave nothing', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    for (let round = 1; round <= 20; round += 1) {
      const child = await connected(relay);
      await sshOf(child);
      await until('one registration there', async () => (await registrations(relay)).length === 1);
      await endsClean(relay, child);
      await child.close();
    }
  }, 400_000);
});

describe.skipIf(isMissing(PINNED_OPENCODE))('unusual surroundings', () => {
  test('this machine is its own relay, with one registry directory', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await using model = await startScriptedModel();
    const child = await connected(relay, { model, registry: relay.registry });
    const ssh = await sshOf(child);
    await until('both registrations', async () => (await registrations(relay)).length === 2);
    await answersOnRelay(relay, 'here and there');
    expect(await sshOf(child)).toBe(ssh);
    await endsClean(relay, child);
  });

  test.each(['SIGTERM', 'SIGKILL'] as const)(
    'an opencode behind a script that stays: no orphan after %s',
    async (signal) => {
      const temp = tempDir('launcher');
      closers.push(() => temp.close());
      const launcher = join(temp.path, 'opencode');
      await writeFile(launcher, `#!/bin/sh\n"${PINNED_OPENCODE}" "$@"\nexit $?\n`);
      await chmod(launcher, 0o755);
      const child = await startConnected({ opencode: launcher });
      closers.push(() => child.close());
      await child.registered();
      child.kill(signal);
      await child.exited;
      await until('nothing to be left', async () => (await child.left()).length === 0);
    },
  );
});
