import { type ChildProcess, spawn } from 'node:child_process';
import { messageOf } from '../../base/errors.ts';
import { ReportedError } from '../../base/program.ts';
import { processIdentity, type ProcessIdentity } from '../process-table.ts';
import type { Ending } from '../start/opencode-process.ts';
import type { Terminal } from '../start/terminal.ts';

/** A terminal ends within a second, unless it hangs. */
const TERM_MS = 5_000;

/** The person's terminal on the service, started as the person would start it. Does not end what it leaves running. */
export class ServiceTerminal {
  readonly ended: Promise<Ending>;
  readonly #terminal: Terminal;
  #end: (ending: Ending) => void = () => {};
  #child: ChildProcess | undefined;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  /** Resolves with its process. @throws {ReportedError} it cannot be run */
  async open(
    program: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    cwd?: string,
  ): Promise<ProcessIdentity | undefined> {
    const child = spawn(program, args, { stdio: 'inherit', env, cwd });
    this.#child = child;
    child.once('exit', (code, signal) => {
      if (signal !== null) this.#terminal.restore();
      this.#end({ code, signal });
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) => reject(new ReportedError(`cannot start ${program}: ${messageOf(error)}`)));
    });
    return processIdentity(child.pid ?? 0);
  }

  /** Passes on a signal that the terminal may have sent to it as well. */
  pass(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** Sends `signal`, and SIGKILL 5 s later. */
  stop(signal: NodeJS.Signals): void {
    this.pass(signal);
    // A stopped process does not act on a signal.
    this.pass('SIGCONT');
    setTimeout(() => this.pass('SIGKILL'), TERM_MS).unref();
  }
}

/** Stands in for the terminal with --headless: runs until a signal arrives. */
export class HeldOpen implements Pick<ServiceTerminal, keyof ServiceTerminal> {
  readonly ended: Promise<Ending>;
  #end: (ending: Ending) => void = () => {};
  /** Keeps this process alive. */
  readonly #alive = setInterval(() => {}, 2 ** 30);

  constructor() {
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  async open(): Promise<undefined> {}

  pass(signal: NodeJS.Signals): void {
    this.stop(signal);
  }

  stop(signal: NodeJS.Signals): void {
    clearInterval(this.#alive);
    this.#end({ code: null, signal });
  }
}
