import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { quoted, singleLine } from '../../base/plain-text.ts';
import { familyOf } from '../process-table.ts';
import { REMOTE_COMMAND, REMOTE_PROGRAM } from './remote-program.ts';
import { ASKS_NOTHING, sshArguments } from './ssh-arguments.ts';

export interface SshProcessOptions {
  /** The person's ssh command; our options and the remote command go behind it. Undefined: no ssh, the program runs on this machine. */
  readonly command: readonly string[] | undefined;
  /** Of this machine: where the tunnel leads. */
  readonly localPort: number;
  /** Whether ssh may ask at the terminal. Otherwise it has none, and fails instead of asking. */
  readonly interactive: boolean;
  /** Each line that the program on the relay prints. */
  readonly onLine: (line: string) => void;
  /** The relay's end of the tunnel. */
  readonly onPort: (port: number) => void;
  /** Each line that ssh itself prints, safe to show. */
  readonly onMessage?: (line: string) => void;
}

/** One running ssh, or the shell that takes its place on this machine. */
export interface SshProcess {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Resolves, once it has ended, with the reason, safe to show. Never rejects. */
  readonly ended: Promise<string>;
  /** What ssh itself printed last, in quotation marks and safe to show; empty where it printed nothing. */
  readonly lastWords: string;
  /** Sends a line to the program on the relay. Only the answer shows that it arrived. */
  send(line: string): void;
  /** Ends the input, lets ssh end by itself for `graceMs` or until `release` is called, then kills it and what it started. Idempotent. */
  end(graceMs: number): Promise<void>;
  /** The other side has said its last: `end` need not wait. */
  release(): void;
}

/** Between SIGTERM, at which ssh closes the connection in order, and SIGKILL. */
const TERM_MS = 150;
/** A killed process is gone within milliseconds, even on a busy machine; what is not has hung in the kernel. */
const KILL_MS = 100;
/** What ssh last said arrives a moment after its exit; a child that it left behind may hold the pipe for ever. */
const LAST_WORDS_MS = 100;
/** `ps` answers in some 20 ms; without it ssh alone is killed. */
const FAMILY_MS = 150;
/** Longer than any line of the protocol; a login script that prints megabytes must not fill the memory. */
const MAX_LINE_CHARS = 16 * 1024;
/** ssh gives the cause in its last line, seldom in the last three. */
const KEPT_LINES = 3;
const MAX_REASON_CHARS = 300;

export function startSsh(ssh: SshProcessOptions): SshProcess {
  return new RunningSsh(ssh);
}

class RunningSsh implements SshProcess {
  readonly pid: number | undefined;
  readonly ended: Promise<string>;
  readonly #options: SshProcessOptions;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable> | undefined;
  readonly #lastWords: string[] = [];
  #hasPort = false;
  #released: () => void = () => {};
  readonly #whenReleased = new Promise<void>((resolve) => (this.#released = resolve));
  #ending: Promise<void> | undefined;

  constructor(ssh: SshProcessOptions) {
    this.#options = ssh;
    const argv =
      ssh.command === undefined
        ? ['/bin/sh', '-c', REMOTE_PROGRAM]
        : sshArguments({ ...ssh, command: ssh.command, remoteCommand: REMOTE_COMMAND });
    const [program = '', ...words] = argv;
    try {
      const child = spawn(program, words, {
        stdio: ['pipe', 'pipe', 'pipe'],
        // A session of its own has no terminal to write to, and is a group to kill. One that may ask must stay in ours: a terminal is read by its foreground group.
        detached: !this.#mayAsk,
        // ssh needs all of it: SSH_AUTH_SOCK, HOME.
        ...(!ssh.interactive && { env: { ...process.env, ...ASKS_NOTHING } }),
      });
      this.#child = child;
      this.pid = child.pid;
      this.ended = this.#watch(child, program);
      // No tunnel: the instance's own port is the one to register.
      if (ssh.command === undefined) queueMicrotask(() => ssh.onPort(ssh.localPort));
    } catch (error) {
      // An argument with a NUL, or no memory for another process.
      this.ended = Promise.resolve(cannotRun(program, error));
    }
  }

  get #mayAsk(): boolean {
    return this.#options.interactive && this.#options.command !== undefined;
  }

  get lastWords(): string {
    return this.#lastWords.length === 0 ? '' : quoted(this.#lastWords.join('; '), MAX_REASON_CHARS);
  }

  send(line: string): void {
    if (this.#child?.stdin.writable === true) this.#child.stdin.write(`${line}\n`);
  }

  release(): void {
    this.#released();
  }

  end(graceMs: number): Promise<void> {
    this.#ending ??= this.#end(graceMs);
    return this.#ending;
  }

  async #end(graceMs: number): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    child.stdin.end();
    // Once released, ssh still waits for whatever uses the tunnel.
    if (graceMs > 0) await soon(Promise.race([this.ended, this.#whenReleased]), graceMs);
    const family = await this.#family();
    signalAll(family, 'SIGTERM');
    await soon(this.ended, TERM_MS);
    signalAll(family, 'SIGKILL');
    await soon(this.ended, KILL_MS);
    child.stdout.destroy();
    child.stderr.destroy();
  }

  /** Process ids to signal, negative for a group. Empty once ssh has ended without a group of its own. */
  async #family(): Promise<readonly number[]> {
    const { pid } = this;
    if (pid === undefined) return [];
    if (!this.#mayAsk) return [-pid];
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) return [];
    return [...((await soon(familyOf(pid), FAMILY_MS)) ?? [pid])];
  }

  #watch(child: ChildProcessByStdio<Writable, Readable, Readable>, program: string): Promise<string> {
    // Writing to an ssh that has just died; its end says why.
    child.stdin.on('error', () => {});
    onLines(child.stdout, this.#options.onLine);
    onLines(child.stderr, (line) => this.#hear(line));
    return new Promise((resolve) => {
      child.once('error', (error) => resolve(cannotRun(program, error)));
      child.once('exit', (code, signal) => {
        const closed = new Promise<void>((done) => child.once('close', () => done()));
        void soon(closed, LAST_WORDS_MS).then(() => resolve(this.#reason(code, signal)));
      });
    });
  }

  #hear(line: string): void {
    // The person's configuration may ask for forwards of its own, and LogVerbose puts a place in the source before the line.
    const allocated = /Allocated port (\d+) for remote forward to 127\.0\.0\.1:(\d+)/.exec(line);
    if (allocated?.[1] !== undefined && Number(allocated[2]) === this.#options.localPort) {
      if (!this.#hasPort) this.#options.onPort(Number(allocated[1]));
      this.#hasPort = true;
      return;
    }
    const shown = singleLine(line, MAX_REASON_CHARS).trim();
    if (shown === '') return;
    keepLast(this.#lastWords, shown);
    this.#options.onMessage?.(shown);
  }

  #reason(code: number | null, signal: NodeJS.Signals | null): string {
    const how = signal === null ? `ended with status ${code}` : `was ended by ${signal}`;
    const program = this.#options.command === undefined ? 'the shell' : 'ssh';
    const words = this.lastWords;
    if (words === '') return `${program} ${how}`;
    const hint =
      !this.#options.interactive && wantsPerson(words)
        ? '; reconnecting asks nothing: load the key into ssh-agent, or start opencode-connected again to be asked'
        : '';
    return `${words} (${program} ${how})${hint}`;
  }
}

/** Whether an ssh that may not ask failed for want of an answer: to its own questions, gcloud's, or those of a ProxyCommand. */
export function wantsPerson(reason: string): boolean {
  return /Permission denied|Host key verification failed|cannot prompt|\/dev\/tty/.test(reason);
}

/** Adds a line to the last ones, unless it is empty. */
export function keepLast(lines: string[], line: string): void {
  if (line.trim() !== '') lines.push(line);
  if (lines.length > KEPT_LINES) lines.shift();
}

/** The `reason` for a login after which our program did not run, of which the lines `printed` say more. */
export function anotherCommand(printed: readonly string[], reason: string): string {
  const words = quoted(printed.join('; '), MAX_REASON_CHARS);
  const what = printed.length === 0 ? 'did not run' : `printed ${words} instead of running`;
  return `the relay ${what} our program: ${reason}; see command= in its authorized_keys, ForceCommand in its sshd_config and its login shell`;
}

/** Whether the reason that an ssh gives for its end is that the person interrupted it at the terminal. */
export function wasInterrupted(reason: string | undefined): boolean {
  return /was ended by SIG(?:INT|QUIT)\)?$/.test(reason ?? '');
}

/** What is said of a program that could not be started, safe to show. */
export function cannotRun(program: string, error: unknown): string {
  const shown = JSON.stringify(singleLine(program, 100));
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'it cannot be started';
  const what = code === 'ENOENT' ? 'there is no such program' : code === 'EACCES' ? 'it is not executable' : code;
  return `cannot run ${shown}: ${what}; ${program === '/bin/sh' ? 'a POSIX shell is needed there' : 'install it, or correct RELAY_SSH_CMD'}`;
}

/** Calls `take` for each whole line. A longer one than any of ours is cut. */
function onLines(stream: Readable, take: (line: string) => void): void {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  const feed = (text: string): void => {
    const lines = (rest + text).split('\n');
    rest = (lines.pop() ?? '').slice(0, MAX_LINE_CHARS);
    for (const line of lines) take(line.replace(/\r$/, ''));
  };
  stream.on('data', (chunk: Buffer) => feed(decoder.write(chunk)));
  stream.once('end', () => {
    if (rest !== '') feed('\n');
  });
  stream.on('error', () => {});
}

/** Undefined when `ms` pass first. Real time: killing is not what a test's clock is for. */
async function soon<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function signalAll(targets: readonly number[], signal: NodeJS.Signals): void {
  for (const target of targets) {
    try {
      process.kill(target, signal);
    } catch {
      // Gone already, which is what was wanted.
    }
  }
}
