import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';

import { until, within } from '../test/rig/wait.ts';
import { spawnNode, type SpawnOptions } from './line-process.ts';

/** `opencode-mcp node` as a child process. */
export class NodeProcess implements AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  constructor(options: SpawnOptions, host: string, port: number) {
    this.host = host;
    this.port = port;
    this.#child = spawnNode(options);
    this.#exited = once(this.#child, 'exit');
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Resolves when it accepts connections on the tailnet's address. */
  async listening(): Promise<void> {
    await until('the node service to listen', () => accepts(this.host, this.port));
  }

  async close(): Promise<void> {
    this.#child.kill('SIGTERM');
    await within(this.#exited, 'the node service to end', 5_000).catch(() => this.#child.kill('SIGKILL'));
    await this.#exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
