import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import { until, within } from './wait.ts';

/** The child keeps this many characters of its last output. */
const OUTPUT_LIMIT = 400_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A child process with the end of its output. */
export class LoggedChild {
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #name: string;
  #output = '';

  constructor(child: ChildProcess, name = child.spawnargs.join(' ')) {
    this.#child = child;
    this.#name = name;
    for (const stream of [child.stdout, child.stderr])
      stream
        ?.setEncoding('utf8')
        .on('data', (text: string) => (this.#output = (this.#output + text).slice(-OUTPUT_LIMIT)));
    this.exited = once(child, 'exit').then(() => ({ code: child.exitCode, signal: child.signalCode }));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Standard output and error so far. */
  get output(): string {
    return this.#output;
  }

  /** Signals the child only, not the processes that it started. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Sends the signal if the child runs, and resolves when it has exited. */
  async end(signal: NodeJS.Signals = 'SIGKILL', timeoutMs?: number): Promise<void> {
    if (!this.running) return;
    this.signal(signal);
    await within(this.exited, `${this.#name} to exit on ${signal}`, timeoutMs);
  }

  /** Like `until`, but rejects with the output if the child ends first. */
  until<T>(
    what: string,
    look: () => T | undefined | false | Promise<T | undefined | false>,
    timeoutMs?: number,
  ): Promise<T> {
    return until(
      () => `${what}; so far: ${this.#output.slice(-4_000)}`,
      async () => {
        const found = await look();
        if (found || this.running) return found;
        throw new Error(`${this.#name} ended with ${this.#child.exitCode ?? this.#child.signalCode}:\n${this.#output}`);
      },
      timeoutMs,
    );
  }
}
