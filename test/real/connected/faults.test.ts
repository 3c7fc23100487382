import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

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

/** Checks that an MCP server on the relay lists the instance once, and can send to it. */
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

/** Ends the wrapper, and waits until nothing is left here and on the relay. */
async function endsClean(relay: Relay, child: ConnectedChild): Promise<void> {
  child.kill('SIGTERM');
  await child.exited;
  await until('no file to be left on the relay', async () => (await filesIn(relay.registry)).length === 0);
  await until('no session to be left', async () => (await relay.sshd.sessionProcesses()).length === 0);
  await until('nothing to be left here', async () => (await child.left()).length === 0);
}

describe.skipIf(isMissing(PINNED_OPENCODE))('opencode-connected in unusual surroundings', () => {
  test('registers twice if this machine is its own relay with one registry directory', async (context) => {
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
    'leaves no orphan of an opencode behind a script after %s',
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
      expect(await child.exited).toEqual({ code: null, signal });
      await until('nothing to be left', async () => (await child.left()).length === 0);
    },
  );
});
