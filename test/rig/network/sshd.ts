import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestContext } from 'vitest';

import { CONNECTED_SCRIPT } from '../programs/connected-child.ts';
import { LoggedChild } from '../logged-child.ts';
import { skipFor, SYSTEM_PACKAGES } from '../needed.ts';
import { guardProcess } from '../orphan-guard.ts';
import { freePort } from '../ports.ts';
import { allPids, endProcessesIn, processesIn, signalProcess } from '../processes.ts';
import { tempDir } from '../temp.ts';

export { signalProcess };

const run = promisify(execFile);

/** Debian installs sshd outside of users' PATH, and sshd must be started by its absolute path. */
const SSHD = ['/usr/sbin/sshd', '/usr/local/sbin/sshd', '/usr/bin/sshd'].find((path) => existsSync(path));

export interface SshdOptions {
  /** The source of `sh` and every other program of the sessions: the system (dash on Debian), or busybox. */
  readonly shell?: 'system' | 'busybox';
  /** A command that runs it elsewhere, as its own process, and its address there: `ip netns exec …`. Default: here, on 127.0.0.1. */
  readonly elsewhere?: { readonly prefix: readonly string[]; readonly address: string };
  /** Lines for sshd_config, which win over the rig's own. */
  readonly config?: readonly string[];
}

/** A process of a session on the relay: sshd's own, or one that it started. */
export interface SessionProcess {
  readonly pid: number;
  readonly parent: number;
  /** As in `ps`, on one line. */
  readonly command: string;
}

/** Puts `opencode-connected` on the PATH of its sessions, as an installation does; by default the built one. */
export async function installConnected(
  { bin }: Pick<Sshd, 'bin'>,
  script = `#!/bin/sh\nexec '${process.execPath}' '${CONNECTED_SCRIPT}' "$@"\n`,
): Promise<void> {
  await writeFile(join(bin, 'opencode-connected'), script, { mode: 0o755 });
}

/** The first line of a test that needs an sshd. */
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
  const sshd = new Sshd(SSHD, options, await freePort());
  try {
    await sshd.prepare();
    await sshd.start();
    return sshd;
  } catch (error) {
    await sshd.close();
    throw error;
  }
}

/** A real sshd, by default on 127.0.0.1, with its own keys, for the user who runs the tests. */
export class Sshd implements AsyncDisposable {
  readonly port: number;
  /** The sessions' home. */
  readonly home: string;
  /** The first folder on the sessions' PATH; empty. */
  readonly bin: string;
  /** The words of the ssh command that reaches this sshd, and reads none of the user's files. */
  readonly command: readonly string[];
  readonly #temp = tempDir('sshd-rig');
  readonly #binary: string;
  readonly #options: SshdOptions;
  #child: LoggedChild | undefined;
  #earlierLogs = '';
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
    const words = ['ssh', '-F', 'none', '-i', this.#file('client_key'), '-p', String(port)];
    this.command = [...words, ...settings, `${userInfo().username}@${this.#address}`];
  }

  /** The pid of the listening process, or of the last one. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get #address(): string {
    return this.#options.elsewhere?.address ?? '127.0.0.1';
  }

  /** `command` for `RELAY_SSH_CMD`. */
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
    // As root, sshd refuses to start without this directory, which the package's service would create.
    if (process.getuid?.() === 0) await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
    await writeFile(this.#file('sshd_config'), `${this.#config(await this.#path()).join('\n')}\n`);
  }

  #config(path: string): string[] {
    return [
      // sshd uses the first line of each setting.
      ...(this.#options.config ?? []),
      `Port ${this.port}`,
      `ListenAddress ${this.#address}`,
      `HostKey ${this.#file('host_key')}`,
      `AuthorizedKeysFile ${this.#file('authorized_keys')}`,
      'PidFile none',
      // The keys are below /tmp, which everyone may write to.
      'StrictModes no',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'PrintMotd no',
      'PrintLastLog no',
      // Tests connect often; by default, sshd drops connections at random from the 10th on.
      'MaxStartups 100',
      'LogLevel VERBOSE',
      // TMPDIR marks the processes of a session, even after their parent has changed.
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
    const applets = stdout.split('\n').filter(Boolean);
    await Promise.all(applets.map((applet) => symlink(busybox, join(folder, applet))));
    return folder;
  }

  /** Listens, each time on the same port and with the same host key. */
  async start(): Promise<void> {
    const [program, ...args] = [...(this.#options.elsewhere?.prefix ?? []), this.#binary];
    const child = spawn(program, [...args, '-D', '-e', '-f', this.#file('sshd_config')], {
      env: { PATH: process.env['PATH'] ?? '', TMPDIR: this.#temp.tmp },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    // TMPDIR does not mark sshd's own processes.
    guardProcess(child);
    this.#earlierLogs += this.#child?.output ?? '';
    const logged = (this.#child = new LoggedChild(child));
    const listens = `Server listening on ${this.#address} port ${this.port}`;
    await logged.until('sshd to listen', () => logged.output.includes(listens), 20_000);
  }

  /** Ends the listener and its sessions. Connecting is refused until `start`. */
  async stop(): Promise<void> {
    // Nothing identifies sshd's processes for sessions once the listener has ended.
    const servers = await this.#servers();
    await this.#child?.end();
    for (const { pid } of servers) signalProcess(pid, 'SIGKILL');
  }

  /** sshd writes its title over its environment, so TMPDIR does not mark its own processes. */
  async #servers(): Promise<SessionProcess[]> {
    return this.pid === 0 ? [] : (await descendantsOf(this.pid)).filter(isSshd);
  }

  /** sshd's processes for sessions (not the listener) and all that they started. Zombies do not count. */
  async sessionProcesses(): Promise<SessionProcess[]> {
    return [...(await this.#servers()), ...(await this.remoteProcesses())];
  }

  /** The processes that the sessions started, even if their sshd has ended, without sshd's own. */
  async remoteProcesses(): Promise<SessionProcess[]> {
    const listed = await Promise.all((await processesIn(this.#temp.tmp)).map(describeProcess));
    return listed.filter((found) => found !== undefined).filter((found) => !isSshd(found));
  }

  /** Signals sshd's own processes of every session, not the listener. Returns their number. */
  async killSessions(signal: NodeJS.Signals = 'SIGKILL'): Promise<number> {
    const servers = await this.#servers();
    for (const { pid } of servers) signalProcess(pid, signal);
    return servers.length;
  }

  /** sshd's log so far. */
  logs(): string {
    return this.#earlierLogs + (this.#child?.output ?? '');
  }

  /** Version, pid and port, for a suite's log. */
  describe(): string {
    // ssh writes its version to standard error; sshd has the same one.
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

/** Undefined if the process has ended. */
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
  const all = (await Promise.all((await allPids()).map(describeProcess))).filter((one) => one !== undefined);
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
