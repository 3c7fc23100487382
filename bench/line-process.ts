import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

import { within } from '../test/rig/wait.ts';

export interface SpawnOptions {
  readonly script: string;
  /** Words before the whole command, which must end in the same process: of a network namespace. */
  readonly before?: readonly string[];
  readonly args: readonly string[];
  readonly execArgv?: readonly string[];
  readonly cwd: string;
  /** All that the child sees beside PATH. */
  readonly env: Readonly<Record<string, string>>;
}

export function spawnNode({
  script,
  before = [],
  args,
  execArgv = [],
  cwd,
  env,
}: SpawnOptions): ChildProcessByStdio<Writable, Readable, null> {
  const [program = '', ...words] = [...before, process.execPath, ...execArgv, script, ...args];
  const child = spawn(program, words, {
    cwd,
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => {});
  return child;
}

/** A program of the bench as a process of its own: one line of JSON for an order, one for its answer, end of input for the end. */
export class LineProcess implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<unknown>;

  constructor(options: SpawnOptions) {
    this.#child = spawnNode(options);
    this.#exited = once(this.#child, 'exit');
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** One at a time. The caller knows what the program answers. */
  async ask<Answer>(order: object, timeoutMs?: number): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    return await this.read<Answer>(timeoutMs);
  }

  /** A line that comes without an order: that the program is ready. */
  async read<Answer>(timeoutMs?: number): Promise<Answer> {
    const line = await within(this.#lines.next(), 'a line of a bench program', timeoutMs);
    if (line.done === true) throw new Error('a bench program has ended early; its reason is on standard error');
    return JSON.parse(line.value) as Answer;
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    await within(this.#exited, 'a bench program to end', 5_000).catch(() => this.#child.kill('SIGKILL'));
    await this.#exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
