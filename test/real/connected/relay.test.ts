import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { type ConnectedChild, connectedEnvironment, CONNECTED_SCRIPT, filesIn } from '../../rig/connected-child.ts';
import { type McpChild } from '../../rig/mcp-child.ts';
import { expectedReply } from '../../rig/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { openSandbox } from '../../rig/opencode-sandbox.ts';
import { startScriptedModel } from '../../rig/scripted-model.ts';
import { needSshd } from '../../rig/sshd.ts';
import { needTmux, openTmux } from '../../rig/tmux.ts';
import { deferred, until } from '../../rig/wait.ts';
import { connected, endAll, openRelay, serverOn, sshOf, stateOf, type Relay } from './relay-stage.ts';

afterEach(endAll);

/** A wrapper on a relay, and a server there that lists it. */
interface Driven {
  readonly child: ConnectedChild;
  readonly server: McpChild;
  readonly instance: string;
}

interface Row {
  readonly name: string;
  readonly state: string;
}

async function rows(server: McpChild): Promise<readonly Row[]> {
  const { result } = await server.call('instances');
  return (result.structuredContent as { readonly instances: readonly Row[] }).instances;
}

async function listed(server: McpChild): Promise<string> {
  return until(
    'the relay to list it as idle',
    async () => (await rows(server)).find(({ state }) => state === 'idle')?.name,
  );
}

async function nothingOnRelay({ registry, sshd }: Relay): Promise<void> {
  await until('nothing to be left on the relay', async () => (await filesIn(registry)).length === 0);
  await until('no session to be left', async () => (await sshd.remoteProcesses()).length === 0);
}

describe.skipIf(isMissing(PINNED_OPENCODE))('an instance on a relay', () => {
  test('is listed there, answers through one tunnel after another, and is gone after a kill -9 of opencode', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await using model = await startScriptedModel();
    const child = await connected(relay, { model });
    const server = await serverOn(relay);
    const instance = await listed(server);
    const { id } = await child.registered();
    const there = JSON.parse(await readFile(join(relay.registry, `${instance}.json`), 'utf8'));
    expect(there).toMatchObject({ id, cwd: child.directory });
    expect(there.port).not.toBe(there.localPort);
    await answersWhileSshIsKilled({ child, server, instance });

    const harms: Readonly<Record<string, () => Promise<unknown>>> = {
      "the relay's session is killed": () => relay.sshd.killSessions(),
      'sshd is restarted': () => relay.sshd.stop().then(() => relay.sshd.start()),
    };
    for (const [what, harm] of Object.entries(harms)) {
      const before = await sshOf(child);
      await harm();
      await sshOf(child, before);
      expect(await listed(server), what).toBe(instance);
      const sent = await server.call('send', { instance, message: `echo: after ${what}` });
      expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: `after ${what}` });
      // One registration with its claim and password, and one session: nothing of the former connection.
      expect(await filesIn(relay.registry), what).toHaveLength(3);
    }

    process.kill(await opencodePid(child), 'SIGKILL');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' });
    await nothingOnRelay(relay);
    await until('nothing to be left here', async () => (await child.left()).length === 0);
    await until('the relay to list nothing', async () =>
      (await rows(server)).every(({ state }) => state === 'offline'),
    );
  });

  test('a kill -9 of the wrapper, even while its ssh is stopped, leaves nothing here and there', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    const child = await connected(relay);
    const ssh = await sshOf(child);
    await until('the registration there', async () =>
      (await filesIn(relay.registry)).some((path) => path.endsWith('.json')),
    );
    process.kill(ssh, 'SIGSTOP');
    child.kill('SIGKILL');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' });
    await nothingOnRelay(relay);
    await until('nothing to be left here', async () => (await child.left()).length === 0);
  });

  test('opencode starts though the relay accepts and sends nothing, and is there once the relay works', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await relay.sshd.stop();
    const accepted = new Set<Socket>();
    const silent = createServer((socket) => accepted.add(socket.on('error', () => {})));
    await new Promise<void>((resolve) => silent.listen(relay.sshd.port, '127.0.0.1', resolve));
    const child = await connected(relay);
    expect(child.output()).toContain(
      'no connection to the relay: no answer within 3 s; trying again in the background',
    );
    silent.close();
    for (const socket of accepted) socket.destroy();
    await relay.sshd.start();
    // By the time that a slow opencode answers, the attempts are up to a minute apart.
    await sshOf(child, undefined, 100_000);
    expect(await listed(await serverOn(relay))).toBe((await child.registered()).name);
  });

  test('the first connection may ask at the terminal: host key and passphrase; then opencode has it', async (context) => {
    needSshd(context);
    needTmux(context);
    const relay = await openRelay();
    await using sandbox = await openSandbox();
    const folder = join(sandbox.home, 'ssh');
    const key = relay.sshd.command[relay.sshd.command.indexOf('-i') + 1] ?? '';
    execFileSync('mkdir', ['-p', folder]);
    execFileSync('cp', [key, join(folder, 'key')]);
    execFileSync('ssh-keygen', ['-q', '-p', '-P', '', '-N', 'open sesame', '-f', join(folder, 'key')]);
    await writeFile(join(folder, 'known_hosts'), '');
    const command = relay.sshd.relaySshCommand
      .replace(`-i ${key}`, `-i ${join(folder, 'key')}`)
      .replace(/UserKnownHostsFile=\S+/, `UserKnownHostsFile=${join(folder, 'known_hosts')}`)
      .replace('StrictHostKeyChecking=yes', 'StrictHostKeyChecking=ask');
    const env = {
      ...connectedEnvironment(sandbox, join(sandbox.home, 'registry')),
      ...relay.env,
      RELAY_SSH_CMD: command,
    };
    await using terminal = await openTmux(env, sandbox.directory);
    await terminal.type(`clear; ${process.execPath} ${CONNECTED_SCRIPT}; echo "code=$?"`, 'Enter');
    await terminal.shows(/continue connecting/);
    await terminal.type('yes', 'Enter');
    await terminal.shows(/passphrase for key/);
    await terminal.type('open sesame', 'Enter');
    await terminal.shows(/Ask anything/);
    await until('the registration there', async () =>
      (await filesIn(relay.registry)).some((path) => path.endsWith('.json')),
    );
    await terminal.type('', 'C-c');
    await terminal.shows(/^code=0/m);
    await nothingOnRelay(relay);
  });
});

/** The tunnel is lost in the middle of a turn and comes back: the answer is whole, and was asked for once. */
async function answersWhileSshIsKilled({ child, server, instance }: Driven): Promise<void> {
  const ssh = await sshOf(child);
  const begun = deferred<void>();
  const message = 'slow 12 300: Word by word. ';
  const sending = server.call(
    'send',
    { instance, message },
    { onProgress: ({ message: text }) => text?.includes('Word') && begun.resolve() },
  );
  await begun.promise;
  process.kill(ssh, 'SIGKILL');
  await sshOf(child, ssh);
  const { result, progress } = await sending;
  expect(result.structuredContent).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  const read = await server.call('read', { instance, message_limit: 10 });
  const { messages } = read.result.structuredContent as { readonly messages: ReadonlyArray<{ readonly role: string }> };
  expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant']);
  expect(progress.length).toBeGreaterThan(0);
}

async function opencodePid(child: ConnectedChild): Promise<number> {
  const state = await stateOf(child);
  if (state === undefined) throw new Error('there is no state file');
  return state.opencodePid;
}
