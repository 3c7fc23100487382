import { connect } from 'node:net';

import { until } from '../test/rig/wait.ts';
import { ChildProgram, type SpawnOptions } from './line-process.ts';

/** `opencode-mcp node`. */
export class NodeProcess extends ChildProgram {
  readonly host: string;
  readonly port: number;

  constructor(options: SpawnOptions, host: string, port: number) {
    super(options);
    this.host = host;
    this.port = port;
  }

  /** Resolves when it accepts connections on the tailnet's address. */
  async listening(): Promise<void> {
    await until('the node service to listen', () => accepts(this.host, this.port));
  }

  protected override stop(): void {
    this.child.kill('SIGTERM');
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
