import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestContext } from 'vitest';

import { CONNECTED_SCRIPT } from './connected-child.ts';
import { skipFor, SYSTEM_PACKAGES } from './needed.ts';
import { freePort } from './ports.ts';
import { endProcessesIn, processesIn, signalProcess } from './processes.ts';
import { tempDir } from './temp.ts';
import { until, within } from './wait.ts';

export { signalProcess };

const run = promisify(execFile);

/** Debian installs it where only root's PATH leads; it insists on being started by its absolute path. */
const SSHD = ['/usr/sbin/sshd', '/usr/local/sbin/sshd', '/usr/bin/sshd'].find((path) => existsSync(path));

/** Kept of sshd's log, in characters. */
const LOG_LIMIT = 200_000;

export interface SshdOptions {
  /** What `sh` and every program of the relay's sessions is: the system's (dash on Debian), or busybox. */
  readonly shell?: 'system' | 'busybox';
  /** A command that runs it elsewhere, as its own process, and its address there: `ip netns exec …`. Default: here, on 127.0.0.1. */
  readonly elsewhere?: { readonly prefix: readonly string[]; readonly address: string };
  /** Lines for sshd_config, which win over the rig's own. */
  readonly config?: readonly string[];
}

/** One process of a session on the relay: sshd's own, or what it started. */
export interface SessionProcess {
  readonly pid: number;
  readonly parent: number;
  /** As in `ps`, on one line. */
  readonly command: string;
}

/** A real sshd, on 127.0.0.1 unless told otherwise, with keys of its own, for the user who runs the tests. */
export interface Sshd extends AsyncDisposable {
  readonly port: number;
  /** Of the listening process, or of the last one. */
  readonly pid: number;
  /** The sessions' home. */
  readonly home: string;
  /** A folder on the sessions' PATH, before all others; empty. */
  readonly bin: string;
  /** The command that reaches it, in words; no file of the person's is read. */
  readonly command: readonly string[];
  /** The same as one would set it in `RELAY_SSH_CMD`. */
  readonly relaySshCommand: string;
  /** sshd's processes for sessions (not the listener) and all that they started. Zombies are not counted. */
  sessionProcesses(): Promise<SessionProcess[]>;
  /** What the sessions started: everything but sshd's own processes, even where their sshd is gone. */
  remoteProcesses(): Promise<SessionProcess[]>;
  /** Sends `signal` (default SIGKILL) to sshd's own processes of every session; the listener stays. Gives how many there were. */
  killSessions(signal?: NodeJS.Signals): Promise<number>;
  /** Ends the listener and, with `sessions`, its sessions too. Connecting is refused until `start`. */
  stop(options?: { readonly sessions: boolean }): Promise<void>;
  /** Listens again, on the same port with the same host key. */
  start(): Promise<void>;
  /** sshd's log so far. */
  logs(): string;
  /** For the line in which a suite says what it drove. */
  describe(): string;
  close(): Promise<void>;
}

/** Puts `opencode-connected` on the PATH of its sessions, as an installation does; by default the built one. */
export async function installConnected(
  { bin }: Pick<Sshd, 'bin'>,
  script = `#!/bin/sh\nexec '${process.execPath}' '${CONNECTED_SCRIPT}' "$@"\n`,
): Promise<void> {
  await writeFile(join(bin, 'opencode-connected'), script, { mode: 0o755 });
}

/** First line of a test that needs one. */
export function needSshd(context: TestContext, shell: SshdOptions['shell'] = 'system'): void {
  const missing = missingPrograms(shell);
  skipFor(context, missing.length === 0 ? undefined : `needs ${missing.join(' and ')}: ${SYSTEM_PACKAGES}`);
}

function missingPrograms(shell: SshdOptions['shell']): string[] {
  const missing: string[] = [];
  if (SSHD === undefined) missing.push('openssh-server');
  if (!isOnPath('ssh') || !isOnPath('ssh-keygen')) missing.push('openssh-client');
  if (shell === 'busybox' && !isOnPath('busybox')) missing.push('busybox');
  return missing;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, program)));
}

export async function startSshd(options: SshdOptions = {}): Promise<Sshd> {
  if (SSHD === undefined) throw new Error('Expected an installed openssh-server, got none; see needSshd');
  const sshd = new LoopbackSshd(SSHD, options, await freePort());
  try {
    await sshd.prepare();
    await sshd.start();
    return sshd;
  } catch (error) {
    await sshd.close();
    throw error;
  }
}

class LoopbackSshd implements Sshd {
  readonly port: number;
  readonly home: string;
  readonly bin: string;
  readonly command: readonly string[];
  readonly #temp = tempDir('sshd-rig');
  readonly #binary: string;
  readonly #options: SshdOptions;
  #child: ChildProcess | undefined;
  /** sshd's own processes of sessions whose listener is gone: nothing else tells whose they are. */
  readonly #left = new Set<number>();
  #logs = '';
  #closing: Promise<void> | undefined;

  constructor(binary: string, options: SshdOptions, port: number) {
    this.#binary = binary;
    this.#options = options;
    this.port = port;
    this.home = this.#file('home');
    this.bin = this.#file('bin');
    const settings = [
      `UserKnownHostsFile=${this.#file('known_hosts')}`,
      'GlobalKnownHostsFile=none',
      'StrictHostKeyChecking=yes',
      'IdentitiesOnly=yes',
      'IdentityAgent=none',
    ].flatMap((option) => ['-o', option]);
    const key = this.#file('client_key');
    this.command = [
      'ssh',
      '-F',
      'none',
      '-i',
      key,
      '-p',
      String(port),
      ...settings,
      `${userInfo().username}@${this.#address}`,
    ];
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get #address(): string {
    return this.#options.elsewhere?.address ?? '127.0.0.1';
  }

  get relaySshCommand(): string {
    return this.command.join(' ');
  }

  async prepare(): Promise<void> {
    await mkdir(this.home, { mode: 0o700 });
    await mkdir(this.bin);
    for (const key of ['host_key', 'client_key']) {
      await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', key, '-f', this.#file(key)]);
    }
    await writeFile(this.#file('authorized_keys'), await readFile(this.#file('client_key.pub')));
    const hostKey = await readFile(this.#file('host_key.pub'), 'utf8');
    await writeFile(this.#file('known_hosts'), `[${this.#address}]:${this.port} ${hostKey}`);
    // sshd run by root refuses to start without it; the package's service makes it, and no service runs here.
    if (process.getuid?.() === 0) await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
    await writeFile(this.#file('sshd_config'), `${this.#config(await this.#path()).join('\n')}\n`);
  }

  #config(path: string): string[] {
    return [
      // sshd takes the first of two.
      ...(this.#options.config ?? []),
      `Port ${this.port}`,
      `ListenAddress ${this.#address}`,
      `HostKey ${this.#file('host_key')}`,
      `AuthorizedKeysFile ${this.#file('authorized_keys')}`,
      'PidFile none',
      // The keys lie below /tmp, which everyone may write to.
      'StrictModes no',
      'UsePAM no',
      'PermitRootLogin prohibit-password',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'AllowTcpForwarding yes',
      'GatewayPorts no',
      'X11Forwarding no',
      'PermitUserEnvironment no',
      'PrintMotd no',
      'PrintLastLog no',
      // Tests connect again and again; the default drops at random from 10 on.
      'MaxStartups 100',
      'LogLevel VERBOSE',
      // TMPDIR marks what a session started, whoever its parent is by then.
      `SetEnv HOME=${this.home} PATH=${this.bin}:${path} TMPDIR=${this.#temp.tmp}`,
    ];
  }

  /** The PATH of the sessions. */
  async #path(): Promise<string> {
    if (this.#options.shell !== 'busybox') return '/usr/local/bin:/usr/bin:/bin';
    const folder = this.#file('busybox');
    await mkdir(folder);
    const { stdout } = await run('busybox', ['--list']);
    const busybox = (await run('sh', ['-c', 'command -v busybox'])).stdout.trim();
    await Promise.all(
      stdout
        .split('\n')
        .filter(Boolean)
        .map((applet) => symlink(busybox, join(folder, applet))),
    );
    return folder;
  }

  async start(): Promise<void> {
    const [program, ...args] = [...(this.#options.elsewhere?.prefix ?? []), this.#binary];
    const child = spawn(program, [...args, '-D', '-e', '-f', this.#file('sshd_config')], {
      env: { PATH: process.env['PATH'] ?? '', TMPDIR: this.#temp.tmp },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child = child;
    endWithThisProcess(child);
    const from = this.#logs.length;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#logs = (this.#logs + text).slice(-LOG_LIMIT);
    });
    await until(
      'sshd to listen',
      () => {
        if (child.exitCode !== null) throw new Error(`sshd ended with ${child.exitCode}: ${this.#logs.slice(from)}`);
        return this.#logs.slice(from).includes(`Server listening on ${this.#address} port ${this.port}`);
      },
      20_000,
    );
  }

  async stop({ sessions } = { sessions: true }): Promise<void> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      // Not awaited with its output: sessions hold that open.
      for (const { pid } of await this.#servers()) this.#left.add(pid);
      const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      child.kill('SIGKILL');
      await within(exited, 'sshd to end');
    }
    if (sessions) await this.killSessions();
  }

  /** sshd writes its title over its environment, so that its own processes bear no mark. */
  async #servers(): Promise<SessionProcess[]> {
    const left = await Promise.all([...this.#left].map(describeProcess));
    const found = [...(this.pid === 0 ? [] : await descendantsOf(this.pid)), ...left];
    return found.filter((one) => one !== undefined).filter(isSshd);
  }

  async sessionProcesses(): Promise<SessionProcess[]> {
    return [...(await this.#servers()), ...(await this.remoteProcesses())];
  }

  async remoteProcesses(): Promise<SessionProcess[]> {
    const listed = await Promise.all((await processesIn(this.#temp.tmp)).map(describeProcess));
    return listed.filter((one) => one !== undefined).filter((one) => !isSshd(one));
  }

  async killSessions(signal: NodeJS.Signals = 'SIGKILL'): Promise<number> {
    const servers = await this.#servers();
    for (const { pid } of servers) signalProcess(pid, signal);
    return servers.length;
  }

  logs(): string {
    return this.#logs;
  }

  describe(): string {
    // To standard error, as it always has; sshd is of the same source.
    const version = spawnSync('ssh', ['-V'], { encoding: 'utf8' }).stderr.split(',')[0]?.trim();
    return `sshd ${version} (pid ${this.pid}, port ${this.port}, ${this.#options.shell ?? 'system'} shell)`;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.stop();
      await endProcessesIn(this.#temp.tmp);
      await this.#temp.close();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #file(name: string): string {
    return join(this.#temp.path, name);
  }
}

function isSshd({ command }: SessionProcess): boolean {
  return /^(?:\S*\/)?sshd(?:-session|-auth)?\b/.test(command);
}

/** A shell that waits for the end of a pipe of ours: sshd bears no mark by which the orphan guard would know it. */
function endWithThisProcess(child: ChildProcess): void {
  const guard = spawn(
    '/bin/sh',
    ['-c', 'trap "" INT TERM HUP; read -r word; [ "$word" = ended ] || kill -KILL "$0"', String(child.pid)],
    {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    },
  );
  guard.unref();
  guard.on('error', () => {});
  guard.stdin.on('error', () => {});
  if (guard.stdin instanceof Socket) guard.stdin.unref();
  child.once('exit', () => guard.stdin.end('ended\n'));
}

/** Undefined for one that has ended meanwhile. */
export async function describeProcess(pid: number): Promise<SessionProcess | undefined> {
  try {
    const [stat, commandLine] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ]);
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state === 'Z') return undefined;
    return { pid, parent: Number(parent), command: commandLine.replaceAll('\0', ' ').trim() };
  } catch {
    return undefined;
  }
}

/** Processes of this machine with `parent` among their ancestors. Linux only. */
export async function descendantsOf(parent: number): Promise<SessionProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const all = (await Promise.all(pids.map(describeProcess))).filter((one) => one !== undefined);
  const found: SessionProcess[] = [];
  const queue = [parent];
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    for (const one of all) {
      if (one.parent !== next) continue;
      found.push(one);
      queue.push(one.pid);
    }
  }
  return found;
}
