import { execFileSync } from 'node:child_process';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { filesIn } from '../../rig/programs/connected-child.ts';
import { needSshd } from '../../rig/network/sshd.ts';
import { needTmux } from '../../rig/programs/tmux.ts';
import { until } from '../../rig/wait.ts';
import { openTerminalStage, WRAPPER } from '../terminal-stage.ts';
import {
  atEnd,
  endAll,
  folder,
  nothingLeft,
  nothingOnRelay,
  openRelay,
  program,
  registeredOn,
  sshOf,
  startWrapper,
  stateOf,
} from '../wrapper-stage.ts';

afterEach(endAll);

const healthOf = (port: number): Promise<Response> => fetch(`http://127.0.0.1:${port}/global/health`);

describe('opencode-connected --headless', () => {
  test('starts opencode with the given arguments and environment, without npm variables, and returns its exit code', async () => {
    const record = join(folder().path, 'seen');
    const child = await startWrapper({
      opencode: await program(`{ printf '%s\\n' "$@"; env; } >"${record}"; exit 7`),
      args: ['--headless', '--', '--log-level', 'a "b" $c'],
      env: {
        npm_config_registry: 'http://127.0.0.1:9/',
        npm_package_name: 'x',
        npm_lifecycle_event: 'y',
        KEPT: 'kept',
      },
    });
    expect(await child.exited).toEqual({ code: 7, signal: null });
    const lines = (await readFile(record, 'utf8')).split('\n');
    const port: unknown = expect.stringMatching(/^\d+$/);
    expect(lines.slice(0, 7)).toEqual(['serve', '--port', port, '--hostname', '127.0.0.1', '--log-level', 'a "b" $c']);
    expect(lines.filter((line) => line.startsWith('npm_'))).toEqual([]);
    expect(lines).toEqual(expect.arrayContaining(['KEPT=kept', `OPENCODE_CONFIG=${child.env['OPENCODE_CONFIG']}`]));
    expect(lines.filter((line) => /^OPENCODE_SERVER_PASSWORD=.{20,}/.test(line))).toHaveLength(1);
    await nothingLeft(child);
  });

  test('takes another port if another program listens on the chosen port', async () => {
    const portFile = join(folder().path, 'port');
    const opencode = await program(`[ -e "${portFile}" ] && exec $server "$@"
echo "$3" >"${portFile}.tmp" && mv "${portFile}.tmp" "${portFile}"
exec sleep 600`);
    const child = await startWrapper({ opencode });
    const port = Number(await until('the port', () => readFile(portFile, 'utf8').catch(() => undefined)));
    const otherServer = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => otherServer.listen(port, '127.0.0.1', resolve));
    atEnd(() => new Promise((resolve) => otherServer.close(resolve)));
    const registered = await child.registered();
    expect(registered.port).not.toBe(port);
    expect((await healthOf(registered.port)).status).toBe(401);
  });

  test('reports an opencode that is too old, and ends it', async () => {
    const child = await startWrapper({ opencode: await program('VERSION=1.0.5 exec $server "$@"') });
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain(
      'opencode 1.0.5 is too old; 1.18.10 or newer is needed; its terminal does not work',
    );
    await nothingLeft(child);
  });

  test('warns with --no-password and stores no password; removes all its files at SIGHUP', async () => {
    const child = await startWrapper({ opencode: await program(), args: ['--headless', '--no-password'] });
    const { port } = await child.registered();
    expect(child.output()).toContain('without a password every user of this machine');
    expect((await healthOf(port)).status).toBe(200);
    expect((await filesIn(child.registry)).filter((path) => path.includes('.credentials'))).toEqual([]);
    child.kill('SIGHUP');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGHUP' });
    await nothingLeft(child);
  });

  test('refuses a wrong command line before anything starts', async () => {
    const child = await startWrapper({ args: ['stat'] });
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.output()).toContain('"stat": neither a directory nor a subcommand');
    expect(await child.left()).toEqual([]);
  });

  test.each(['SIGTERM', 'SIGKILL'] as const)(
    'leaves no orphan after %s if opencode is a script that starts another process',
    async (signal) => {
      const child = await startWrapper({ opencode: await program('$server "$@"\nexit $?') });
      await child.registered();
      child.kill(signal);
      expect(await child.exited).toEqual({ code: null, signal });
      await nothingLeft(child);
    },
  );
});

describe('opencode-connected with a relay', () => {
  test('leaves nothing on either machine after kill -9, even while its ssh is stopped', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    const child = await startWrapper({ opencode: await program(), env: relay.env });
    await child.registered();
    const ssh = await sshOf(child);
    await registeredOn(relay);
    process.kill(ssh, 'SIGSTOP');
    child.kill('SIGKILL');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' });
    await nothingOnRelay(relay);
    await nothingLeft(child);
  });

  test('starts opencode if the relay accepts connections but sends nothing, and registers once the relay works', async (context) => {
    needSshd(context);
    const relay = await openRelay();
    await relay.sshd.stop();
    const accepted = new Set<Socket>();
    const silent = createServer((socket) => accepted.add(socket.on('error', () => {})));
    await new Promise<void>((resolve) => silent.listen(relay.sshd.port, '127.0.0.1', resolve));
    const child = await startWrapper({ opencode: await program(), env: relay.env });
    await child.registered();
    expect(child.output()).toContain(
      'no connection to the relay: no answer within 3 s; trying again in the background',
    );
    silent.close();
    for (const socket of accepted) socket.destroy();
    await relay.sshd.start();
    await sshOf(child);
    await registeredOn(relay);
    expect((await healthOf((await stateOf(child)).relay?.port ?? 0)).status).toBe(401);
  });

  test('asks for the host key and the passphrase at the terminal, and then gives the terminal to opencode', async (context) => {
    needSshd(context);
    needTmux(context);
    const relay = await openRelay();
    const { path } = folder();
    const [key, hosts] = [join(path, 'key'), join(path, 'known_hosts')];
    const ownKey = relay.sshd.command[relay.sshd.command.indexOf('-i') + 1] ?? '';
    await copyFile(ownKey, key);
    execFileSync('ssh-keygen', ['-q', '-p', '-P', '', '-N', 'open sesame', '-f', key]);
    await writeFile(hosts, '');
    const command = relay.sshd.relaySshCommand
      .replace(`-i ${ownKey}`, `-i ${key}`)
      .replace(/UserKnownHostsFile=\S+/, `UserKnownHostsFile=${hosts}`)
      .replace('StrictHostKeyChecking=yes', 'StrictHostKeyChecking=ask');
    const { terminal, nothingLeft: nothingLeftHere } = await openTerminalStage({
      opencode: await program('$server "$@" & read -r line; echo "opencode reads $line"; kill $!'),
      env: { ...relay.env, RELAY_SSH_CMD: command },
    });
    await terminal.type(`clear; ${WRAPPER}; echo "code=$?"`, 'Enter');
    await terminal.shows(/continue connecting/);
    await terminal.type('yes', 'Enter');
    await terminal.shows(/passphrase for key/);
    await terminal.type('open sesame', 'Enter');
    await registeredOn(relay);
    await terminal.type('a line', 'Enter');
    expect(await terminal.shows(/^code=0/m)).toContain('opencode reads a line');
    await nothingOnRelay(relay);
    await nothingLeftHere();
  });

  test('starts opencode without the relay at Ctrl-C while it connects, and ends at the next Ctrl-C', async (context) => {
    needTmux(context);
    const ssh = join(folder().path, 'ssh');
    // This ssh fails in batch mode, and hangs where it may ask questions.
    await writeFile(
      ssh,
      `#!/bin/sh
case "$*" in *BatchMode=yes*) echo 'Permission denied (publickey).' >&2; exit 255 ;; esac
exec sleep 600
`,
      { mode: 0o755 },
    );
    const env = { RELAY_SSH_CMD: `${ssh} relay` };
    const { terminal, nothingLeft: nothingLeftHere } = await openTerminalStage({ opencode: await program(), env });
    await terminal.type(`clear; ${WRAPPER} --headless`, 'Enter');
    await terminal.shows(/connecting to the relay; Ctrl-C continues without it/);
    await terminal.type('', 'C-c');
    expect(await terminal.shows(/answers at http/)).toContain('no connection to the relay');
    await terminal.type('', 'C-c');
    // The shell sees that an interrupt ended the wrapper, and abandons the rest of its line.
    await nothingLeftHere();
    await terminal.type('echo back$((1+1))', 'Enter');
    await terminal.shows(/^back2$/m);
  });
});
