import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

import { within } from '../test/rig/wait.ts';

export interface SpawnOptions {
  readonly script: string;
  /** Words before the command, as `ip netns exec …`, which must exec it. */
  readonly before?: readonly string[] | undefined;
  readonly args: readonly string[];
  readonly cwd: string;
  /** The child's environment besides PATH. */
  readonly env: Readonly<Record<string, string>>;
}

/** A Node program as a child process. */
export class ChildProgram implements AsyncDisposable {
  protected readonly child: ChildProcessByStdio<Writable, Readable, null>;
  protected readonly exited: Promise<unknown>;

  constructor({ script, before = [], args, cwd, env }: SpawnOptions) {
    const [program = '', ...words] = [...before, process.execPath, script, ...args];
    this.child = spawn(program, words, {
      cwd,
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdin.on('error', () => {});
    this.exited = once(this.child, 'exit');
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Asks the program to end. */
  protected stop(): void {
    this.child.stdin.end();
  }

  async close(): Promise<void> {
    this.stop();
    await within(this.exited, 'a program to end', 5_000).catch(() => this.child.kill('SIGKILL'));
    await this.exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A bench program: one line of JSON per order and per answer; it ends with its input. */
export class LineProcess extends ChildProgram {
  readonly #lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();

  /** One at a time. The caller knows the type of the answer. */
  async ask<Answer>(order: object, timeoutMs?: number): Promise<Answer> {
    this.child.stdin.write(`${JSON.stringify(order)}\n`);
    return await this.read<Answer>(timeoutMs);
  }

  /** An unsolicited line: the program is ready. */
  async read<Answer>(timeoutMs?: number): Promise<Answer> {
    const line = await within(this.#lines.next(), 'a line of a bench program', timeoutMs);
    if (line.done === true) throw new Error('a bench program has ended early; its reason is on standard error');
    return JSON.parse(line.value) as Answer;
  }
}
