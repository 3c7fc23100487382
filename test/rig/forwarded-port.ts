import { once } from 'node:events';
import { connect, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

import type { TailnetMachine } from './tailnet-node.ts';
import { within } from './wait.ts';

const LISTENER = fileURLToPath(new URL('tailnet-listener-child.mjs', import.meta.url));

/** A port of a machine's 127.0.0.1 that leads to one of this process's own. */
export interface ForwardedPort {
  readonly port: number;
  close(): void;
}

/**
 * Makes `target`, a port on the loopback of the tests, reachable on a machine's own loopback, where nothing of the tests
 * is to be reached. A socket stays in the network namespace in which it was made: one process makes it there and hands it over.
 */
export async function forwardTo(machine: TailnetMachine, target: number): Promise<ForwardedPort> {
  const child = machine.spawn([process.execPath, LISTENER], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [{ port }, server] = (await within(once(child, 'message'), `a socket that listens on ${machine.name}`)) as [
    { readonly port: number },
    Server,
  ];
  child.disconnect();
  const open = new Set<Socket>();
  server.on('connection', (near) => {
    const far = connect(target, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('error', () => {});
      one.once('close', () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  return {
    port,
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
