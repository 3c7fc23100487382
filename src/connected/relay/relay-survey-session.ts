import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

import type { Clock } from '../../base/clock.ts';
import { quoted, singleLine } from '../../base/plain-text.ts';
import { type Bytes, type RegistrySurvey, SurveyReader } from './relay-survey.ts';
import { SURVEY_COMMAND } from './relay-survey-program.ts';
import { ASKS_NOTHING, sshArguments } from './ssh-arguments.ts';
import { anotherCommand, cannotRun, keepLast, wantsPerson } from './ssh-process.ts';

export interface SurveySessionOptions {
  /** The person's ssh command in words, for the relay; none: a shell of this machine. */
  readonly sshCommand?: readonly string[];
  /** Absolute, or beginning with `~/`, on the machine where it is. Without control characters. */
  readonly directory: string;
  /** Nobody has chosen that directory: where it is another user's, it is this user's own that is meant. */
  readonly isDefault?: boolean;
  readonly clock: Clock;
  /** Ends the session; what is asked then rejects. */
  readonly signal: AbortSignal;
  /** For the connection and for each answer; default 60 s, as for every batch connection to the relay. */
  readonly limitMs?: number;
}

/** What was removed, or why it was left. */
export type Removal = { readonly removed: true } | { readonly removed: false; readonly reason: string };

export interface DeadRegistration {
  readonly nameBytes: Bytes;
  /** The claim's line; empty where there is none. */
  readonly claim: Bytes;
  /** As surveyed; empty where there is none. */
  readonly content: Bytes;
  /** 0 where there is no registration. */
  readonly port: number;
  /** Whether this program has just seen the port refuse connections, for a system that does not tell who listens. */
  readonly vouched: boolean;
}

/** One process beside a registry directory, here or on the relay, that answers questions about it. Calls reject with a reason, safe to show. */
export interface SurveySession {
  survey(): Promise<RegistrySurvey>;
  /** Removes a registration and its claim, after it was looked at again. */
  remove(dead: DeadRegistration): Promise<Removal>;
  /** Removes a password file that no registration and no claim needs; with `old`, only one of more than an hour. */
  forget(id: string, age: 'any' | 'old'): Promise<Removal>;
  /** Ends the process, within about 600 ms. Idempotent; never rejects. */
  close(): Promise<void>;
}

const LIMIT_MS = 60_000;
/** As long as ssh takes to close in order on a slow line. */
const END_MS = 400;
const KILL_MS = 100;
/** A full survey of small files is below 2 MB; one of 2,000 files of the largest size is cut off. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const GREETING = 'opencode-connected registry 1';
const MAX_REASON_CHARS = 300;
const KEPT_ERROR_BYTES = 4_000;

/** Starts the process; nothing is awaited. Where it cannot be started, the calls say so. */
export function openSurveySession(options: SurveySessionOptions): SurveySession {
  try {
    return new Session(options);
  } catch (error) {
    // What is wrong with most paths comes as an event, but not all of it: ENOTDIR, ELOOP, E2BIG are thrown.
    const reason = new Error(cannotRun(options.sshCommand?.[0] ?? 'sh', error));
    const refuse = (): Promise<never> => Promise.reject(reason);
    return { survey: refuse, remove: refuse, forget: refuse, close: () => Promise.resolve() };
  }
}

class Session implements SurveySession {
  readonly #options: SurveySessionOptions;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #ended: Promise<void>;
  readonly #greeted: Promise<true>;
  /** Before the greeting. */
  readonly #printed: string[] = [];
  #isEntered = false;
  #take: (line: Bytes) => void = () => {};
  #fail: (reason: Error) => void = () => {};
  #failure: Error | undefined;
  #rest = '';
  #received = 0;
  #errors = '';
  #closing: Promise<void> | undefined;

  constructor(options: SurveySessionOptions) {
    this.#options = options;
    const ssh = options.sshCommand;
    const [program = '', ...words] =
      ssh === undefined
        ? ['sh', '-c', SURVEY_COMMAND]
        : sshArguments({ command: ssh, interactive: false, remoteCommand: SURVEY_COMMAND });
    this.#child = spawn(program, words, {
      stdio: ['pipe', 'pipe', 'pipe'],
      // A session of its own has no terminal to ask at, and is a group to kill.
      detached: true,
      env: { ...process.env, ...ASKS_NOTHING },
    });
    this.#child.stdin.on('error', () => {});
    this.#child.stdout.on('data', (chunk: Buffer) => this.#hear(chunk)).on('error', () => {});
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#errors = (this.#errors + chunk.toString('utf8')).slice(-KEPT_ERROR_BYTES);
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => this.#end(cannotRun(program, error), resolve));
      this.#child.once('close', (code, signal) => this.#end(this.#reason(code, signal), resolve));
    });
    options.signal.addEventListener('abort', this.#onAbort, { once: true });
    // What the login says before it is not for us.
    this.#greeted = this.#answer((line) => {
      if (line.endsWith(GREETING)) return true;
      keepLast(this.#printed, line);
      return undefined;
    });
    this.#greeted.then(
      () => this.#printed.splice(0),
      () => {},
    );
    if (options.signal.aborted) this.#onAbort();
  }

  survey(): Promise<RegistrySurvey> {
    const reader = new SurveyReader();
    return this.#ask('survey', (line) => reader.take(line));
  }

  remove({ nameBytes, claim, content, port, vouched }: DeadRegistration): Promise<Removal> {
    const texts = [nameBytes, claim, content].map((text) => `=${escaped(text)}`);
    return this.#order(`remove ${texts.join(' ')} ${port} ${vouched ? 'yes' : 'no'}`);
  }

  forget(id: string, age: 'any' | 'old'): Promise<Removal> {
    return this.#order(`forget =${id} ${age}`);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#options.signal.removeEventListener('abort', this.#onAbort);
    this.#child.stdin.end();
    await soon(this.#ended, END_MS);
    this.#kill('SIGTERM');
    await soon(this.#ended, KILL_MS);
    this.#kill('SIGKILL');
    this.#child.stdout.destroy();
    this.#child.stderr.destroy();
    this.#broken(new Error('the session was closed'));
  }

  #order(order: string): Promise<Removal> {
    return this.#ask<Removal>(order, (answer) => {
      if (answer === 'removed') return { removed: true };
      return answer.startsWith('kept ') ? { removed: false, reason: shown(answer.slice('kept '.length)) } : undefined;
    });
  }

  /** Sends a line and takes the answer. The directory goes with the first: what is wrong with it must find somebody who listens. */
  async #ask<T>(line: string, take: (line: Bytes) => T | undefined): Promise<T> {
    await this.#greeted;
    this.#received = 0;
    const answer = this.#answer((told) => {
      if (told.startsWith('error ')) throw new Error(shown(told.slice('error '.length)));
      return take(told);
    });
    if (!this.#isEntered) {
      if (this.#options.isDefault === true) this.#send('default yes');
      this.#send(`directory ${this.#options.directory}`);
    }
    this.#isEntered = true;
    this.#send(line);
    return answer;
  }

  /** Feeds every line to `take` until it gives something other than undefined. One question at a time. */
  #answer<T>(take: (line: Bytes) => T | undefined): Promise<T> {
    const over = new AbortController();
    const limitMs = this.#options.limitMs ?? LIMIT_MS;
    void this.#options.clock.sleep(limitMs, over.signal).then(() => {
      if (!over.signal.aborted) this.#broken(new Error(`there was no answer within ${limitMs / 1000} s`));
    });
    return new Promise<T>((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      this.#fail = reject;
      this.#take = (line) => {
        try {
          const answer = take(line);
          if (answer !== undefined) resolve(answer);
        } catch (error) {
          this.#broken(error instanceof Error ? error : new Error(String(error)));
        }
      };
    }).finally(() => {
      over.abort();
      this.#take = () => {};
    });
  }

  #hear(chunk: Buffer): void {
    this.#received += chunk.length;
    if (this.#received > MAX_ANSWER_BYTES) {
      this.#broken(new Error(`it told more than ${MAX_ANSWER_BYTES} bytes of its registry directory`));
      return;
    }
    const lines = (this.#rest + chunk.toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#take(line);
  }

  readonly #onAbort = (): void => this.#broken(new Error('it was interrupted'));

  #broken(reason: Error): void {
    this.#failure ??= reason;
    this.#fail(this.#failure);
    void this.close();
  }

  #end(reason: string, resolve: () => void): void {
    resolve();
    this.#failure ??= new Error(this.#printed.length === 0 ? reason : anotherCommand(this.#printed, reason));
    this.#fail(this.#failure);
  }

  #send(line: string): void {
    if (this.#child.stdin.writable) this.#child.stdin.write(`${line}\n`);
  }

  #kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // Gone already, which is what was wanted.
    }
  }

  #reason(code: number | null, signal: NodeJS.Signals | null): string {
    const how = signal === null ? `ended with status ${code}` : `was ended by ${signal}`;
    const words = this.#errors.trim().split('\n').slice(-3).join('; ').trim();
    const what = this.#options.sshCommand === undefined ? 'sh' : 'ssh';
    if (words === '') return `${what} ${how}`;
    const hint = wantsPerson(words)
      ? '; nothing is asked here: load the key into ssh-agent, or log in once by hand'
      : '';
    return `${quoted(words, MAX_REASON_CHARS)} (${what} ${how})${hint}`;
  }
}

/** For `printf %b`, and without a character at which the shell would split the line. */
function escaped(bytes: Bytes): string {
  return bytes.replace(
    /[^A-Za-z0-9_.,:;/+@{}"~-]/g,
    (character) => `\\0${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
}

function shown(bytes: Bytes): string {
  return singleLine(Buffer.from(bytes, 'latin1').toString('utf8'), MAX_REASON_CHARS);
}

/** Real time: ending processes is not what a test's clock is for. */
async function soon(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
