import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Clock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { RelayLink } from '../../../src/connected/relay/relay-link.ts';
import { needRoot, run } from '../../discovery/as-root.ts';
import { ManualClock, settle } from '../../fleet/manual-clock.ts';
import { needSshd, signalProcess } from '../../rig/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage, type Link, type RelayStage } from './relay-stage.ts';

const never = new AbortController().signal;

describe('a link to a relay with a bad registry directory', () => {
  let stage: RelayStage;
  let mounted = false;

  beforeEach(async (context) => {
    needSshd(context);
    stage = await openRelayStage();
  });
  afterEach(async () => {
    if (mounted) run('umount', '-l', stage.registry);
    mounted = false;
    await stage?.[Symbol.asyncDispose]();
  });

  async function mount(options: string): Promise<void> {
    await mkdir(stage.registry, { mode: 0o700 });
    run('mount', '-t', 'tmpfs', '-o', options, 'tmpfs', stage.registry);
    mounted = true;
  }

  async function refused(link: Link, reason: string | RegExp): Promise<void> {
    const state = await link.connectFirst(never);
    expect(state).toMatchObject({ kind: 'waiting' });
    expect(state.reason).toMatch(reason);
    await until('every process to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await link.ssh()).toEqual([]);
  }

  async function backAgain(link: Link): Promise<void> {
    const seen = link.states.length;
    link.keep();
    await until('the link to wait', () => link.state.kind === 'waiting' && stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await link.reaches('connected', seen);
    expect((await stage.files()).filter((name) => name.endsWith('.json'))).toEqual(['laptop-app.json']);
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port, id: 'id-one' });
  }

  it('reports a read-only directory, and registers once it is writable', async (context) => {
    needRoot(context);
    await mount('ro,size=64k,mode=700');
    const link = stage.link();
    await refused(link, /^the relay says "cannot write in the registry directory .*Read-only file system/);
    run('mount', '-o', 'remount,rw', stage.registry);
    await backAgain(link);
  });

  it('replaces its registration in a directory that was read-only when it was lost', async (context) => {
    needRoot(context);
    await mount('size=64k,mode=700');
    const link = stage.link();
    await link.connectFirst(never);
    run('mount', '-o', 'remount,ro', stage.registry);
    const [ssh] = await link.ssh();
    signalProcess(ssh!.pid, 'SIGKILL');
    await link.reaches('waiting');
    await until('the session to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await stage.files()).toContain('laptop-app.json');
    run('mount', '-o', 'remount,rw', stage.registry);
    await backAgain(link);
    await link.close();
    await stage.nothingLeft();
  });

  it('reports a full disk without leaving half a file, and registers once there is room', async (context) => {
    needRoot(context);
    await mount('size=64k,mode=700');
    const filler = join(stage.registry, 'filler');
    await writeFile(filler, Buffer.alloc(128 * 1024)).catch(() => {});
    const link = stage.link();
    await refused(link, /^the relay says "cannot write .*No space left on device/);
    expect(await stage.files()).toEqual(['filler']);
    await rm(filler);
    await backAgain(link);
  });

  it('reports a registration that does not fit, and withdraws everything', async (context) => {
    needRoot(context);
    // Room for the claim and the password, which are there first, and not for a long registration.
    await mount('size=12k,mode=700');
    const link = stage.link({ describe: () => ({ cwd: `/${'x'.repeat(8_000)}` }) });
    await refused(link, /^the relay says "cannot write the registration laptop-app\.json .*No space left on device/);
    expect(await stage.files()).toEqual([]);
    expect(await stage.passwords()).toEqual([]);
  });

  it('keeps its connection when the disk becomes full', async (context) => {
    needRoot(context);
    await mount('size=64k,mode=700');
    const link = stage.link();
    await link.connectFirst(never);
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

  it("refuses a directory of another user's", async (context) => {
    needRoot(context);
    await mkdir(stage.registry, { mode: 0o700 });
    await chown(stage.registry, 12_345, 12_345);
    await refused(stage.link(), /^the relay says "the registry directory .* belongs to uid 12345, not to uid 0/);
    expect(await stage.files()).toEqual([]);
  });

  it.each([
    [0o720, 'run there'],
    [0o702, 'run there'],
    // As /tmp is, which nobody could use without.
    [0o1777, 'name a folder of its own, or, if it holds registrations only, run there'],
  ])('refuses a directory of mode %o, to which others can write', async (mode, advice) => {
    await mkdir(stage.registry);
    await chmod(stage.registry, mode);
    const { reason } = await stage.link().connectFirst(never);
    expect(reason).toMatch(/^the relay says "the registry directory .* can be written by its group or by others \(d/);
    expect(reason).toContain(`); ${advice}: chmod go-w ${stage.registry}"`);
    expect(await stage.files()).toEqual([]);
  });

  it('refuses a directory that is a file', async () => {
    await writeFile(stage.registry, '');
    await refused(stage.link(), /^the relay says "cannot (?:make|enter) the registry directory/);
  });

  it('takes another name if a directory has the name of its registration file', async () => {
    await mkdir(join(stage.registry, 'laptop-app.json'), { recursive: true, mode: 0o700 });
    await chmod(stage.registry, 0o700);
    const link = stage.link();
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected', name: 'laptop-app-2' });
  });
});

describe('a link with an unusual ssh', () => {
  let stage: RelayStage;

  beforeEach(async (context) => {
    needSshd(context);
    stage = await openRelayStage();
  });
  afterEach(() => stage?.[Symbol.asyncDispose]());

  it('reports a missing program', async () => {
    const link = stage.link({ sshCommand: ['no-such-ssh', 'relay'] });
    expect(await link.connectFirst(never)).toEqual({
      kind: 'waiting',
      reason: 'cannot run "no-such-ssh": there is no such program; install it, or correct RELAY_SSH_CMD',
    });
  });

  it("repeats ssh's own words, with a hint that later attempts cannot ask", async () => {
    const link = stage.link({ sshCommand: [...stage.sshd.command.slice(0, -1), 'nobody-here@127.0.0.1'] });
    const first = await link.connectFirst(never);
    expect(first.reason).toMatch(/Permission denied \(publickey\)\." \(ssh ended with status 255\)$/);
    const seen = link.states.length;
    link.keep();
    await until('the link to wait', () => stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await link.reaches('connecting', seen);
    expect((await link.reaches('waiting', seen + 1)).reason).toMatch(/load the key into ssh-agent/);
  });

  it('lets neither ssh nor gcloud ask', async () => {
    const script = 'echo "$SSH_ASKPASS_REQUIRE $CLOUDSDK_CORE_DISABLE_PROMPTS" >&2; exit 1';
    const link = stage.link({ sshCommand: ['sh', '-c', script, 'sh'] });
    expect((await link.connectFirst(never)).reason).toBe('"never 1" (ssh ended with status 1)');
  });

  it('reports that ssh hides the port of the tunnel', async () => {
    const said = join(stage.sshd.home, 'said');
    // tee passes on a line before it keeps it.
    const script = ['sh', '-c', 'said=$1; shift 2; ssh -q "$@" | tee "$said"', 'sh', said];
    const link = stage.link({ sshCommand: [...script, ...stage.sshd.command] });
    link.keep();
    await until('the greeting', async () => (await readFile(said, 'utf8').catch(() => '')) !== '');
    await stage.clock.advance(2_000);
    expect((await link.reaches('waiting')).reason).toBe(
      'ssh did not say which port the relay gave to the tunnel; remove -q and LogLevel from the command of RELAY_SSH_CMD',
    );
    await stage.nothingLeft();
  });

  it("connects despite the person's configuration for their own sessions", async () => {
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
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    await link.close();
    await stage.nothingLeft();
  });

  it('connects despite flags that no later option cancels', async () => {
    const log = join(stage.sshd.home, 'log');
    const own = ['-fNnqyv', '-M', '-S', log, '-E', log, '-qoLogLevel=ERROR', '-o', 'sessiontype none', '-s'];
    const forwards = ['-o', 'ExitOnForwardFailure=yes', '-L', `${stage.sshd.port}:127.0.0.1:1`];
    const [program = '', ...words] = stage.sshd.command;
    const link = stage.link({ sshCommand: ['env', 'A=b', program, ...own, ...forwards, ...words, '-q', '--'] });
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    await link.close();
    await stage.nothingLeft();
  });

  it.each([
    [
      'and waits',
      "printf 'Choose [1-3]: '",
      /^the relay printed "Choose \[1-3\]:" instead of running our program: there/,
    ],
    [
      'that prints nothing',
      'true',
      /^the relay did not run our program: there was no answer within 60 s; see command=/,
    ],
  ])('reports that the relay forces another command %s', async (_, command, reason) => {
    await using forced = await openRelayStage({ config: [`ForceCommand ${command}; echo waiting >&2; sleep 100`] });
    const said: string[] = [];
    const link = forced.link({ onMessage: (line) => said.push(line) });
    const first = link.connectFirst(never);
    await until('the command to wait', () => said.includes('waiting'));
    await forced.clock.advance(60_000);
    expect(await first).toEqual({ kind: 'connecting' });
    expect((await link.reaches('waiting')).reason).toMatch(reason);
  });

  it('reports after 3 s what the relay printed before it waits', async () => {
    await using forced = await openRelayStage({
      config: ["ForceCommand echo 'Press enter to accept the terms'; echo waiting >&2; sleep 100"],
    });
    const said: string[] = [];
    const first = forced.link({ onMessage: (line) => said.push(line) }).connectFirst(never);
    await until('the command to wait', () => said.includes('waiting'));
    await forced.clock.advance(3_000);
    expect(await first).toEqual({
      kind: 'connecting',
      reason: 'no answer within 3 s; the relay printed "Press enter to accept the terms"',
    });
  });

  it('reports that the relay forces another command that ends', async () => {
    await using forced = await openRelayStage({ config: ["ForceCommand echo 'for git only'; exit 3"] });
    expect((await forced.link().connectFirst(never)).reason).toMatch(
      /^the relay printed "for git only" instead of running our program: ssh ended with status 3; see command=/,
    );
  });

  it('gives up a relay that accepts and sends nothing, and ends at close', async () => {
    const accepted: unknown[] = [];
    const silent = createServer((socket) => {
      socket.on('error', () => {});
      accepted.push(socket);
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    const sshCommand = stage.sshd.command.map((word) => (word === String(stage.sshd.port) ? String(port) : word));
    const link = stage.link({ sshCommand });
    const first = link.connectFirst(never);
    await until('the connection', () => accepted.length === 1);
    await stage.clock.advance(3_000);
    expect(await first).toEqual({ kind: 'connecting' });
    link.keep();
    await stage.clock.advance(57_000);
    expect((await link.reaches('waiting')).reason).toBe(
      'no connection to the relay within 60 s; try the command of RELAY_SSH_CMD by hand',
    );
    await until('the link to wait', () => stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await until('another connection', () => accepted.length === 2);
    await link.close();
    expect(link.states.at(-1)).toEqual({ kind: 'closed' });
    await until('ssh to end', async () => (await stage.link().ssh()).length === 0);
    silent.close();
  });

  it('cancels the first attempt', async () => {
    const cancel = new AbortController();
    cancel.abort();
    const link = stage.link();
    expect(await link.connectFirst(cancel.signal)).toEqual({ kind: 'waiting', reason: 'the attempt was cancelled' });
    await stage.nothingLeft();
    link.keep();
    await until('the link to wait', () => stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await link.reaches('connected');
  });

  it('abandons a stopped ssh whose answers are missing, ends it with the program that runs it, and reconnects', async () => {
    // As gcloud does.
    const link = stage.link({ sshCommand: ['sh', '-c', '"$@"; exit $?', 'sh', ...stage.sshd.command] });
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    link.keep();
    const [ssh] = await link.ssh();
    signalProcess(ssh!.pid, 'SIGSTOP');
    await stage.clock.advance(70_000);
    expect((await link.reaches('waiting')).reason).toMatch(/^the relay has not answered for \d+ s$/);
    await stage.nothingLeft();
    await until('the link to wait', () => stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await link.reaches('connected', link.states.length);
    await link.close();
    await stage.nothingLeft();
  });

  /** An ssh that has to ask before it connects. */
  const asking = ({ sshd }: RelayStage): string[] => {
    const script =
      'case "$*" in *BatchMode=yes*) echo "me@relay: Permission denied (publickey)." >&2; exit 255 ;; esac';
    return ['sh', '-c', `${script}; exec "$@"`, 'sh', ...sshd.command];
  };

  it('lets ssh ask at the terminal if it fails without, but not when it reconnects', async () => {
    const said: string[] = [];
    const link = stage.link({ sshCommand: asking(stage), onMessage: (line) => said.push(line) });
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    expect(said).toEqual([]);
    link.keep();
    const session = async (pid: number): Promise<number> =>
      Number((await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /, '').split(' ')[3]);
    const [first] = await link.ssh();
    expect(first!.command).not.toContain('BatchMode');
    expect(await session(first!.pid)).toBe(await session(process.pid));
    signalProcess(first!.pid, 'SIGKILL');
    await until('the link to wait', () => link.state.kind === 'waiting' && stage.clock.due(60_000) > 0);
    const seen = link.states.length;
    await stage.clock.advance(1_000);
    expect((await link.reaches('waiting', seen)).reason).toMatch(/reconnecting asks nothing/);
  });

  it('does not wait long after the login if the relay sends nothing more', async () => {
    await using silent = await openRelayStage({ config: ['ForceCommand touch "$HOME/ran"; sleep 100'] });
    const link = silent.link({ sshCommand: asking(silent) });
    const first = link.connectFirst(never);
    await until('the login', () => existsSync(join(silent.sshd.home, 'ran')) && silent.clock.due(3_000) > 0);
    await silent.clock.advance(3_000);
    expect(await first).toEqual({ kind: 'connecting' });
  });

  it('reports that the relay forwards no ports', async () => {
    await using closed = await openRelayStage({ config: ['AllowTcpForwarding no'] });
    const first = closed.link().connectFirst(never);
    await until('the greeting', () => closed.clock.due(2_000) > 0);
    await closed.clock.advance(2_000);
    expect((await first).reason).toMatch(/^the relay gave no port to the tunnel: .*remote port forwarding failed/);
    await closed.nothingLeft();
  });

  it('ignores what a login script prints', async () => {
    await writeFile(
      join(stage.sshd.home, '.bashrc'),
      String.raw`echo welcome; echo claimed evil; echo registered; echo news >&2; printf '\033]0;relay\007'`,
    );
    const link = stage.link();
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected', name: 'laptop-app' });
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });
});

describe('the wait for the next attempt', () => {
  /** A manual clock on which the machine can sleep: its time leaps. */
  class SleepingClock implements Clock {
    readonly manual = new ManualClock();
    sleptMs = 0;
    now(): number {
      return this.manual.now() + this.sleptMs;
    }
    monotonic(): number {
      return this.manual.monotonic();
    }
    sleep(ms: number, signal?: AbortSignal): Promise<void> {
      return this.manual.sleep(ms, signal);
    }
  }

  function failing(random: () => number): {
    clock: SleepingClock;
    nextDelay: () => Promise<number>;
    close: () => Promise<void>;
  } {
    const clock = new SleepingClock();
    const link = new RelayLink({
      sshCommand: ['no-such-ssh'],
      registryDir: { path: '/tmp/nowhere', explicit: true },
      localPort: 4096,
      id: 'id',
      name: 'name',
      describe: () => ({}),
      clock,
      logger: silentLogger,
      random,
    });
    link.keep();
    let last: number | undefined;
    return {
      clock,
      close: () => link.close(),
      async nextDelay() {
        const next = await until('the next delay', () => {
          const { nextAttemptAtMs } = link.state;
          return nextAttemptAtMs !== last && clock.manual.due() > 0 ? nextAttemptAtMs : undefined;
        });
        last = next;
        return next - clock.now();
      },
    };
  }

  it.each([
    ['longest', 1, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]],
    ['shortest', 0, [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]],
    ['middle', 0.5, [1_500, 2_500, 4_500, 8_500, 16_500, 30_500, 30_500]],
  ] as const)('grows to at most a minute: the %s', async (_, random, delays) => {
    const { clock, nextDelay, close } = failing(() => random);
    for (const delay of delays) {
      expect(await nextDelay()).toBe(delay);
      await clock.manual.advance(delay);
    }
    await close();
  });

  it('ends at once when the machine wakes up', async () => {
    const { clock, nextDelay, close } = failing(() => 1);
    for (const delay of [2_000, 4_000, 8_000, 16_000]) {
      expect(await nextDelay()).toBe(delay);
      await clock.manual.advance(delay);
    }
    expect(await nextDelay()).toBe(32_000);
    clock.sleptMs += 20_000;
    await clock.manual.advance(1_000);
    await settle();
    // Another attempt was made, and counts as the first.
    expect(await nextDelay()).toBe(2_000);
    await close();
  });

  it('starts again from the shortest after a connection that held for a minute', async (context) => {
    needSshd(context);
    await using stage = await openRelayStage();
    let refuse = false;
    const link = stage.link({
      random: () => 1,
      // The second word decides whether ssh runs at all.
      sshCommand: ['sh', '-c', `test ! -e "$0" && exec "$@"`, join(stage.sshd.home, 'refuse'), ...stage.sshd.command],
    });
    const block = async (on: boolean): Promise<void> => {
      refuse = on;
      if (on) await writeFile(join(stage.sshd.home, 'refuse'), '');
      else await rm(join(stage.sshd.home, 'refuse'));
    };
    const delay = async (expected: number): Promise<void> => {
      const at = await until('the next attempt', () => link.state.nextAttemptAtMs);
      expect(at - stage.clock.now()).toBe(expected);
      const seen = link.states.length;
      await until('the wait', () => stage.clock.due(1_000) > 0);
      await stage.clock.advance(expected);
      await link.reaches(refuse ? 'waiting' : 'connected', seen + 1);
    };
    const drop = async (): Promise<void> => {
      const [ssh] = await link.ssh();
      signalProcess(ssh!.pid, 'SIGKILL');
      await link.reaches('waiting');
    };
    await block(true);
    await link.connectFirst(never);
    link.keep();
    await delay(2_000);
    await delay(4_000);
    await block(false);
    await delay(8_000);
    // Short-lived: one more of the same series.
    await drop();
    await delay(16_000);
    for (let second = 0; second < 60; second += 20) {
      await stage.clock.advance(20_000);
      await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    }
    await drop();
    await delay(2_000);
  });
});

it.each([{ name: 'a\nb' }, { registryDir: { path: '/a\nid evil', explicit: true } }, { password: 'secret\nid evil' }])(
  'throws before anything runs if a value contains a line break: %j',
  (wrong) => {
    const options = {
      sshCommand: ['ssh', 'relay'],
      registryDir: { path: '/tmp/opencode-relay', explicit: true },
      localPort: 4096,
      id: 'id',
      name: 'name',
      describe: () => ({}),
      clock: new ManualClock(),
      logger: silentLogger,
    };
    const [field] = Object.keys(wrong);
    const word = field === 'registryDir' ? 'directory' : field;
    expect(() => new RelayLink({ ...options, ...wrong })).toThrow(
      `cannot register: the ${word} contains a control character; choose another`,
    );
  },
);
