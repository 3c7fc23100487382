import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';

import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import type { RelayLinkOptions } from '../../../src/connected/relay/relay-link.ts';
import { needRoot, run } from '../../discovery/as-root.ts';
import { needSshd } from '../../rig/network/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage, type Link, type RelayStage } from './relay-stage.ts';

const neverAborted = new AbortController().signal;

beforeEach((context) => needSshd(context));

/** Opens a link to a relay whose sshd runs `command` instead of our program. */
async function openForcedCommand(
  command: string,
  options: Partial<RelayLinkOptions> = {},
): Promise<[Link, RelayStage]> {
  const stage = await openRelayStage({ config: [`ForceCommand ${command}`] });
  return [stage.link(options), stage];
}

/** The command of an ssh that must prompt before it connects. */
function promptingSsh({ sshd }: RelayStage): string[] {
  const script = 'case "$*" in *BatchMode=yes*) echo "me@relay: Permission denied (publickey)." >&2; exit 255 ;; esac';
  return ['sh', '-c', `${script}; exec "$@"`, 'sh', ...sshd.command];
}

describe('a link to a relay with a bad registry directory', () => {
  let stage: RelayStage;

  beforeEach(async () => {
    stage = await openRelayStage();
  });

  async function mountRegistry(options: string): Promise<void> {
    await mkdir(stage.registry, { mode: 0o700 });
    run('mount', '-t', 'tmpfs', '-o', options, 'tmpfs', stage.registry);
    onTestFinished(() => void run('umount', '-l', stage.registry));
  }

  async function expectRefusal(link: Link, reason: string | RegExp): Promise<void> {
    const state = await link.connectFirst(neverAborted);
    expect(state).toMatchObject({ kind: 'waiting' });
    expect(state.reason).toMatch(reason);
    await until('every process to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await link.ssh()).toEqual([]);
  }

  it('reports a read-only directory, and registers once it is writable', async (context) => {
    needRoot(context);
    await mountRegistry('ro,size=64k,mode=700');
    const link = stage.link();
    await expectRefusal(link, /^the relay says "cannot write in the registry directory .*Read-only file system/);
    run('mount', '-o', 'remount,rw', stage.registry);
    await stage.backAgain(link);
  });

  it('replaces its registration in a directory that was read-only when it was lost', async (context) => {
    needRoot(context);
    await mountRegistry('size=64k,mode=700');
    const link = stage.link();
    await link.connectFirst(neverAborted);
    run('mount', '-o', 'remount,ro', stage.registry);
    await link.signalSsh('SIGKILL');
    await link.reaches('waiting');
    await until('the session to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await stage.files()).toContain('laptop-app.json');
    run('mount', '-o', 'remount,rw', stage.registry);
    await stage.backAgain(link);
    await link.close();
    await stage.nothingLeft();
  });

  it('reports a full disk without leaving half a file, and registers once there is room', async (context) => {
    needRoot(context);
    await mountRegistry('size=64k,mode=700');
    const filler = join(stage.registry, 'filler');
    await writeFile(filler, Buffer.alloc(128 * 1024)).catch(() => {});
    const link = stage.link();
    await expectRefusal(link, /^the relay says "cannot write .*No space left on device/);
    expect(await stage.files()).toEqual(['filler']);
    await rm(filler);
    await stage.backAgain(link);
  });

  it('reports a registration that does not fit, and withdraws everything', async (context) => {
    needRoot(context);
    // Room for the claim and the password, which are written first, but not for a long registration.
    await mountRegistry('size=12k,mode=700');
    const link = stage.link({ describe: () => ({ cwd: `/${'x'.repeat(8_000)}` }) });
    await expectRefusal(
      link,
      /^the relay says "cannot write the registration laptop-app\.json .*No space left on device/,
    );
    expect(await stage.files()).toEqual([]);
    expect(await stage.passwords()).toEqual([]);
  });

  it('keeps its connection when the disk becomes full', async (context) => {
    needRoot(context);
    await mountRegistry('size=64k,mode=700');
    const link = stage.link();
    await link.connectFirst(neverAborted);
    link.keep();
    await writeFile(join(stage.registry, 'filler'), Buffer.alloc(128 * 1024)).catch(() => {});
    await stage.clock.advance(20_000);
    await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    await stage.clock.advance(20_000);
    await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    expect(link.state.kind).toBe('connected');
    await link.close();
    expect(await stage.files()).toEqual(['filler']);
  });

  it("refuses a directory that is not this user's alone, and a file in its place", async (context) => {
    needRoot(context);
    const writable = 'can be written by its group or by others';
    const advice = `run there: chmod go-w ${stage.registry}"`;
    for (const [make, ...reasons] of [
      [() => chown(stage.registry, 12_345, 12_345), ' belongs to uid 12345, not to uid 0'],
      [() => chmod(stage.registry, 0o720), writable, `(drwx-w----); ${advice}`],
      [() => chmod(stage.registry, 0o702), writable, `(drwx----w-); ${advice}`],
      // The mode of /tmp: a removed permission would break it for everyone.
      [
        () => chmod(stage.registry, 0o1777),
        writable,
        `(drwxrwxrwt); name a folder of its own, or, if it holds registrations only, ${advice}`,
      ],
    ] as const) {
      await mkdir(stage.registry, { mode: 0o700 });
      await make();
      const link = stage.link();
      await expectRefusal(link, /^the relay says "the registry directory /);
      for (const reason of reasons) expect(link.state.reason).toContain(reason);
      expect(await stage.files()).toEqual([]);
      await rm(stage.registry, { recursive: true });
    }
    await writeFile(stage.registry, '');
    await expectRefusal(stage.link(), /^the relay says "cannot (?:make|enter) the registry directory/);
  });

  it('registers under another name if a directory has the name of its registration file', async () => {
    await mkdir(join(stage.registry, 'laptop-app.json'), { recursive: true, mode: 0o700 });
    await chmod(stage.registry, 0o700);
    const link = stage.link();
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected', name: 'laptop-app-2' });
  });
});

describe('a link with an unusual ssh', () => {
  let stage: RelayStage;

  beforeEach(async () => {
    stage = await openRelayStage();
  });

  it("reports ssh's own error, with a hint that later attempts cannot prompt", async () => {
    const link = stage.link({ sshCommand: [...stage.sshd.command.slice(0, -1), 'nobody-here@127.0.0.1'] });
    const first = await link.connectFirst(neverAborted);
    expect(first.reason).toMatch(/Permission denied \(publickey\)\." \(ssh ended with status 255\)$/);
    link.keep();
    const again = await link.reaches('waiting', await stage.retry(link));
    expect(again.reason).toMatch(/load the key into ssh-agent/);
  });

  it('reports that ssh hides the port of the tunnel', async () => {
    const greeting = join(stage.sshd.home, 'greeting');
    // tee prints a line before it writes it to the file.
    const script = ['sh', '-c', 'greeting=$1; shift 2; ssh -q "$@" | tee "$greeting"', 'sh', greeting];
    const link = stage.link({ sshCommand: [...script, ...stage.sshd.command] });
    link.keep();
    await until('the greeting', async () => (await readFile(greeting, 'utf8').catch(() => '')) !== '');
    await stage.clock.advance(2_000);
    expect((await link.reaches('waiting')).reason).toBe(
      'ssh did not say which port the relay gave to the tunnel; remove -q and LogLevel from the command of RELAY_SSH_CMD',
    );
    await stage.nothingLeft();
  });

  it("connects despite the user's ssh configuration for interactive sessions", async () => {
    const configuration = join(stage.sshd.home, 'config');
    const lines = [
      'ExitOnForwardFailure yes',
      `LocalForward ${stage.sshd.port} 127.0.0.1:1`,
      `DynamicForward ${stage.sshd.port}`,
      'RemoteForward /proc/nowhere/S.gpg-agent /tmp/S.gpg-agent',
      'RemoteForward 0 127.0.0.1:1',
      'Tunnel yes',
      'ClearAllForwardings yes',
      'LogLevel ERROR',
      'LogVerbose *',
      'SessionType none',
      'StdinNull yes',
      'ForkAfterAuthentication yes',
      'RequestTTY force',
      'RemoteCommand sleep 100',
      'PermitLocalCommand yes',
      'LocalCommand sleep 100',
      'ControlMaster auto',
      `ControlPath ${stage.sshd.home}/control`,
      'ControlPersist yes',
      'IgnoreUnknown UseKeychain',
      'UseKeychain yes',
    ];
    await writeFile(configuration, `${lines.join('\n')}\n`);
    const sshCommand = stage.sshd.command.map((word) => (word === 'none' ? configuration : word));
    const link = stage.link({ sshCommand });
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected' });
    await link.close();
    await stage.nothingLeft();
  });

  it('connects despite flags that no later option cancels', async () => {
    const log = join(stage.sshd.home, 'log');
    const flags = ['-fNnqyv', '-M', '-S', log, '-E', log, '-qoLogLevel=ERROR', '-o', 'sessiontype none', '-s'];
    const forwards = ['-o', 'ExitOnForwardFailure=yes', '-L', `${stage.sshd.port}:127.0.0.1:1`];
    const [program = '', ...words] = stage.sshd.command;
    const link = stage.link({ sshCommand: ['env', 'A=b', program, ...flags, ...forwards, ...words, '-q', '--'] });
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected' });
    await link.close();
    await stage.nothingLeft();
  });

  it('gives up on a relay that accepts the connection but sends nothing, and ends ssh when it is closed', async () => {
    const accepted: unknown[] = [];
    const silent = createServer((socket) => {
      socket.on('error', () => {});
      accepted.push(socket);
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    const sshCommand = stage.sshd.command.map((word) => (word === String(stage.sshd.port) ? String(port) : word));
    const link = stage.link({ sshCommand });
    const first = link.connectFirst(neverAborted);
    await until('the connection', () => accepted.length === 1);
    await stage.clock.advance(3_000);
    expect(await first).toEqual({ kind: 'connecting' });
    link.keep();
    await stage.clock.advance(57_000);
    expect((await link.reaches('waiting')).reason).toBe(
      'no connection to the relay within 60 s; try the command of RELAY_SSH_CMD by hand',
    );
    await stage.retry(link);
    await until('another connection', () => accepted.length === 2);
    await link.close();
    expect(link.states.at(-1)).toEqual({ kind: 'closed' });
    await until('ssh to end', async () => (await stage.link().ssh()).length === 0);
    silent.close();
  });

  it('reports a first attempt that was cancelled, and can connect later', async () => {
    const cancel = new AbortController();
    cancel.abort();
    const link = stage.link();
    expect(await link.connectFirst(cancel.signal)).toEqual({ kind: 'waiting', reason: 'the attempt was cancelled' });
    await stage.nothingLeft();
    await stage.backAgain(link);
  });

  it('ends a stopped ssh that does not answer, and the program that runs it, and reconnects', async () => {
    // gcloud runs ssh as a child like this.
    const link = stage.link({ sshCommand: ['sh', '-c', '"$@"; exit $?', 'sh', ...stage.sshd.command] });
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected' });
    link.keep();
    await link.signalSsh('SIGSTOP');
    await stage.clock.advance(70_000);
    expect((await link.reaches('waiting')).reason).toMatch(/^the relay has not answered for \d+ s$/);
    await stage.nothingLeft();
    await stage.backAgain(link);
    await link.close();
    await stage.nothingLeft();
  });

  it('lets ssh prompt at the terminal if the first connection fails without, but not when it reconnects', async () => {
    const messages: string[] = [];
    const link = stage.link({ sshCommand: promptingSsh(stage), onMessage: (line) => messages.push(line) });
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected' });
    expect(messages).toEqual([]);
    link.keep();
    const session = async (pid: number): Promise<number> =>
      Number((await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ')[3]);
    const [first] = await link.ssh();
    expect(first!.command).not.toContain('BatchMode');
    expect(await session(first!.pid)).toBe(await session(process.pid));
    await link.signalSsh('SIGKILL');
    await link.reaches('waiting');
    const again = await link.reaches('waiting', await stage.retry(link));
    expect(again.reason).toMatch(/reconnecting asks nothing/);
  });

  it('ignores the output of a login script', async () => {
    await writeFile(
      join(stage.sshd.home, '.bashrc'),
      String.raw`echo welcome; echo claimed evil; echo registered; echo news >&2; printf '\033]0;relay\007'`,
    );
    const link = stage.link();
    expect(await link.connectFirst(neverAborted)).toMatchObject({ kind: 'connected', name: 'laptop-app' });
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });
});

describe('a link to a relay with an unusual sshd', () => {
  it('reports the output of a forced command that waits, after 3 s and after 60 s', async () => {
    const lines: string[] = [];
    const [link, { clock }] = await openForcedCommand("echo 'Accept the terms? [y]'; echo waiting >&2; sleep 100", {
      onMessage: (line) => lines.push(line),
    });
    const first = link.connectFirst(neverAborted);
    await until('the command to wait', () => lines.includes('waiting'));
    await clock.advance(3_000);
    expect(await first).toEqual({
      kind: 'connecting',
      reason: 'no answer within 3 s; the relay printed "Accept the terms? [y]"',
    });
    await clock.advance(57_000);
    expect((await link.reaches('waiting')).reason).toMatch(
      /^the relay printed "Accept the terms\? \[y\]" instead of running our program: there was no answer within 60 s; see command=/,
    );
  });

  it('reports a forced command that prints nothing', async () => {
    const lines: string[] = [];
    const [link, { clock }] = await openForcedCommand('echo waiting >&2; sleep 100', {
      onMessage: (line) => lines.push(line),
    });
    const first = link.connectFirst(neverAborted);
    await until('the command to wait', () => lines.includes('waiting'));
    await clock.advance(60_000);
    expect(await first).toEqual({ kind: 'connecting' });
    expect((await link.reaches('waiting')).reason).toMatch(
      /^the relay did not run our program: there was no answer within 60 s; see command=/,
    );
  });

  it('reports a forced command that ends', async () => {
    const [link] = await openForcedCommand("echo 'for git only'; exit 3");
    expect((await link.connectFirst(neverAborted)).reason).toMatch(
      /^the relay printed "for git only" instead of running our program: ssh ended with status 3; see command=/,
    );
  });

  it('waits only 3 s after the login for a relay that sends nothing', async () => {
    const silent = await openRelayStage({ config: ['ForceCommand touch "$HOME/ran"; sleep 100'] });
    const first = silent.link({ sshCommand: promptingSsh(silent) }).connectFirst(neverAborted);
    await until('the login', () => existsSync(join(silent.sshd.home, 'ran')) && silent.clock.due(3_000) > 0);
    await silent.clock.advance(3_000);
    expect(await first).toEqual({ kind: 'connecting' });
  });

  it('reports that the relay forwards no ports', async () => {
    const closed = await openRelayStage({ config: ['AllowTcpForwarding no'] });
    const first = closed.link().connectFirst(neverAborted);
    await until('the greeting', () => closed.clock.due(2_000) > 0);
    await closed.clock.advance(2_000);
    expect((await first).reason).toMatch(/^the relay gave no port to the tunnel: .*remote port forwarding failed/);
    await closed.nothingLeft();
  });
});

it('a link waits the shortest time again after a connection that lasted a minute', async () => {
  const stage = await openRelayStage();
  const blocked = join(stage.sshd.home, 'blocked');
  const link = stage.link({
    random: () => 1,
    // ssh runs unless the file `blocked` exists.
    sshCommand: ['sh', '-c', 'test ! -e "$0" && exec "$@"', blocked, ...stage.sshd.command],
  });
  const attempt = async (delayMs: number, result: 'waiting' | 'connected'): Promise<void> => {
    const at = await until('the next attempt', () => link.state.nextAttemptAtMs);
    expect(at - stage.clock.now()).toBe(delayMs);
    const seen = link.states.length;
    await until('the timer of the wait', () => stage.clock.due(1_000) > 0);
    await stage.clock.advance(delayMs);
    await link.reaches(result, seen + 1);
  };
  const loseConnection = async (): Promise<void> => {
    await link.signalSsh('SIGKILL');
    await link.reaches('waiting');
  };
  await writeFile(blocked, '');
  await link.connectFirst(neverAborted);
  link.keep();
  await attempt(2_000, 'waiting');
  await attempt(4_000, 'waiting');
  await rm(blocked);
  await attempt(8_000, 'connected');
  // That connection was short, so the next wait continues the series.
  await loseConnection();
  await attempt(16_000, 'connected');
  for (let second = 0; second < 60; second += 20) {
    await stage.clock.advance(20_000);
    await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
  }
  await loseConnection();
  await attempt(2_000, 'connected');
});
