import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { needRoot, run } from '../../discovery/as-root.ts';
import { type ConnectedChild, filesIn, startConnected } from '../../rig/connected-child.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { startScriptedModel } from '../../rig/scripted-model.ts';
import { needSshd } from '../../rig/sshd.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';
import { atEnd, connected, endAll, openRelay, serverOn, sshOf, type Relay } from './relay-stage.ts';

afterEach(endAll);

async function registrations({ registry }: Relay): Promise<string[]> {
  return (await filesIn(registry)).filter((path) => path.endsWith('.json'));
}

/** The MCP server as it runs on the relay, and what it can do there. */
async function answersOnRelay(relay: Relay, message: string): Promise<void> {
  await using server = await serverOn(relay);
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
      atEnd(async () => run('umount', '-l', relay.registry));
      const filler = join(relay.registry, 'filler');
      if (what === 'full') await writeFile(filler, Buffer.alloc(128 * 1024)).catch(() => {});
      const child = await connected(relay, { model });
      expect(child.output()).toMatch(
        /no connection to the relay: the relay says "cannot write .*(?:Read-only|No space left)/,
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

  test('eight starts and ends in a row leave nothing', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    for (let round = 1; round <= 8; round += 1) {
      const child = await connected(relay);
      await sshOf(child);
      await until('one registration there', async () => (await registrations(relay)).length === 1);
      await endsClean(relay, child);
      await child.close();
    }
  });
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
      atEnd(() => temp.close());
      const launcher = join(temp.path, 'opencode');
      await writeFile(launcher, `#!/bin/sh\n"${PINNED_OPENCODE}" "$@"\nexit $?\n`);
      await chmod(launcher, 0o755);
      const child = await startConnected({ opencode: launcher });
      atEnd(() => child.close());
      await child.registered();
      child.kill(signal);
      await child.exited;
      await until('nothing to be left', async () => (await child.left()).length === 0);
    },
  );
});
