import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as delay } from 'node:timers/promises';

import { quoted } from '../../base/plain-text.ts';
import { familyOf, signalIfThere } from '../process-table.ts';
import { MAX_SHOWN_CHARS, shown } from '../shown.ts';
import { REMOTE_COMMAND, REMOTE_PROGRAM } from './remote-program.ts';
import { ASKS_NOTHING, sshArguments } from './ssh-arguments.ts';
import { cannotRun, keepLast, wantsPerson } from './ssh-failures.ts';

export interface SshProcessOptions {
  /** The user's ssh command; our options and the remote command follow it. Undefined: run the program in a shell on this machine. */
  readonly command: readonly string[] | undefined;
  /** Where the tunnel leads on this machine. */
  readonly localPort: number;
  /** Whether ssh may ask at the terminal. Otherwise it has no terminal, and fails instead of asking. */
  readonly interactive: boolean;
  readonly onLine: (line: string) => void;
  readonly onPort: (port: number) => void;
  /** Called with each line that ssh itself prints, safe to show. */
  readonly onMessage?: ((line: string) => void) | undefined;
}

/** ssh closes the connection properly on SIGTERM; then it gets SIGKILL. */
const TERM_MS = 150;
/** A killed process is gone within milliseconds, even on a busy machine, unless it hangs in the kernel. */
const KILL_MS = 100;
/** ssh's last line arrives a moment after its exit, but a child that it left behind may hold the pipe open forever. */
const LAST_WORDS_MS = 100;
/** `ps` answers in some 20 ms; without it ssh alone is killed. */
const FAMILY_MS = 150;
/** Longer than any line of the protocol, so that a login script that prints megabytes does not fill the memory. */
const MAX_LINE_CHARS = 16 * 1024;

/** A running ssh, or the shell that replaces it on this machine. */
export class SshProcess {
  /** Undefined if it could not be started. */
  readonly pid: number | undefined;
  /** Resolves when it has ended, with the reason, safe to show. Never rejects. */
  readonly ended: Promise<string>;
  readonly #options: SshProcessOptions;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable> | undefined;
  readonly #lastWords: string[] = [];
  #hasPort = false;
  #release: () => void = () => {};
  readonly #released = new Promise<void>((resolve) => (this.#release = resolve));
  #ending: Promise<void> | undefined;

  constructor(options: SshProcessOptions) {
    this.#options = options;
    const { command, interactive, localPort } = options;
    const [program = '', ...words] =
      command === undefined
        ? ['/bin/sh', '-c', REMOTE_PROGRAM]
        : sshArguments({ command, interactive, localPort, remoteCommand: REMOTE_COMMAND });
    try {
      const child = spawn(program, words, {
        stdio: ['pipe', 'pipe', 'pipe'],
        // In a new session ssh has no terminal to write to, and leads a group that can be killed. An ssh that may ask stays in our
        // session, since only the foreground group can read the terminal.
        detached: !this.#mayAsk,
        // ssh needs the whole environment: SSH_AUTH_SOCK, HOME.
        ...(!interactive && { env: { ...process.env, ...ASKS_NOTHING } }),
      });
      this.#child = child;
      this.pid = child.pid;
      this.ended = this.#watch(child, program);
      // There is no tunnel, so the instance's own port is the one to register.
      if (command === undefined) queueMicrotask(() => options.onPort(localPort));
    } catch (error) {
      // An argument holds a NUL, or there is no memory for another process.
      this.ended = Promise.resolve(cannotRun(program, error));
    }
  }

  get #mayAsk(): boolean {
    return this.#options.interactive && this.#options.command !== undefined;
  }

  /** The last lines that ssh itself printed, quoted and safe to show; empty if it printed nothing. */
  get lastWords(): string {
    return this.#lastWords.length === 0 ? '' : quoted(this.#lastWords.join('; '), MAX_SHOWN_CHARS);
  }

  /** Sends a line to the program on the relay. Only its answer shows that the line arrived. */
  send(line: string): void {
    if (this.#child?.stdin.writable === true) this.#child.stdin.write(`${line}\n`);
  }

  /** The program has sent its last line, so `end` need not wait any longer. */
  release(): void {
    this.#release();
  }

  /** Ends the input, waits up to `graceMs` for ssh's end or for `release`, then kills it and what it started. Idempotent. */
  end(graceMs: number): Promise<void> {
    this.#ending ??= this.#end(graceMs);
    return this.#ending;
  }

  async #end(graceMs: number): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    child.stdin.end();
    // After its last line, ssh does not end while something uses the tunnel.
    if (graceMs > 0) await soon(Promise.race([this.ended, this.#released]), graceMs);
    const family = await this.#family();
    for (const pid of family) signalIfThere(pid, 'SIGTERM');
    await soon(this.ended, TERM_MS);
    for (const pid of family) signalIfThere(pid, 'SIGKILL');
    await soon(this.ended, KILL_MS);
    child.stdout.destroy();
    child.stderr.destroy();
  }

  /** The pids to signal; a group's is negative. Empty if ssh has ended and had no group of its own. */
  async #family(): Promise<readonly number[]> {
    const { pid } = this;
    if (pid === undefined) return [];
    if (!this.#mayAsk) return [-pid];
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) return [];
    return [...((await soon(familyOf(pid), FAMILY_MS)) ?? [pid])];
  }

  #watch(child: ChildProcessByStdio<Writable, Readable, Readable>, program: string): Promise<string> {
    // Writing to an ssh that has just died fails; its exit gives the reason.
    child.stdin.on('error', () => {});
    onLines(child.stdout, this.#options.onLine);
    onLines(child.stderr, (line) => this.#takeMessage(line));
    return new Promise((resolve) => {
      child.once('error', (error) => resolve(cannotRun(program, error)));
      child.once('exit', (code, signal) => {
        const closed = new Promise<void>((done) => child.once('close', () => done()));
        void soon(closed, LAST_WORDS_MS).then(() => resolve(this.#reason(code, signal)));
      });
    });
  }

  #takeMessage(line: string): void {
    // The person's configuration may request other forwards, and LogVerbose puts a source position before the line.
    const allocated = /Allocated port (\d+) for remote forward to 127\.0\.0\.1:(\d+)/.exec(line);
    if (allocated?.[1] !== undefined && Number(allocated[2]) === this.#options.localPort) {
      if (!this.#hasPort) this.#options.onPort(Number(allocated[1]));
      this.#hasPort = true;
      return;
    }
    const words = shown(line).trim();
    if (words === '') return;
    keepLast(this.#lastWords, words);
    this.#options.onMessage?.(words);
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

/** Calls `take` with each whole line, cut at `MAX_LINE_CHARS`. */
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

/** Resolves to undefined if `ms` pass first. Uses real time: killing a process does not follow a test's clock. */
async function soon<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const over = new AbortController();
  const late = delay(ms, undefined, { signal: over.signal }).catch(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    over.abort();
  }
}
