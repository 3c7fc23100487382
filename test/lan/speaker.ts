import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import type { Machine } from '../rig/network/lan.ts';
import { spawnIn } from '../rig/network/namespaces.ts';
import { within } from '../rig/wait.ts';

const PROGRAM = fileURLToPath(new URL('programs/speaker.ts', import.meta.url));

export interface Order {
  /** An IPv4 address of the machine. */
  readonly from: string;
  /** In base64. */
  readonly packets: readonly string[];
  readonly times: number;
}

/** A process on a machine that multicasts packets. */
export interface Speaker extends AsyncDisposable {
  /** Resolves when all packets have been sent. */
  send(packets: readonly Buffer[], options?: { readonly from?: string; readonly times?: number }): Promise<void>;
}

export async function speaker(machine: Machine): Promise<Speaker> {
  const child = spawnIn(machine.namespace, [process.execPath, '--import', 'tsx', PROGRAM], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('Expected pipes');
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return {
    async send(packets, { from = machine.on(1), times = 1 } = {}) {
      const order: Order = { from, packets: packets.map((packet) => packet.toString('base64')), times };
      stdin.write(`${JSON.stringify(order)}\n`);
      await within(lines.next(), `${machine.name} to have sent its packets`);
    },
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit');
      stdin.end();
      await within(ended, `the speaker on ${machine.name} to end`);
    },
  };
}
