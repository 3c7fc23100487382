import { once } from 'node:events';
import { connect, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

import { spawnIn } from './namespaces.ts';
import { within } from '../wait.ts';

const LISTENER = fileURLToPath(new URL('forwarded-port-child.mjs', import.meta.url));

/** A loopback port in a network namespace that leads to a loopback port of the tests. */
export interface ForwardedPort {
  readonly port: number;
  close(): void;
}

/**
 * Forwards `listenPort` on the loopback of a namespace (0: any free port) to `target` on the loopback of the tests. A child creates the
 * socket, which stays in the namespace, and passes it to this process.
 */
export async function forwardInto(namespace: string, target: number, listenPort = 0): Promise<ForwardedPort> {
  const argv = [process.execPath, LISTENER, String(listenPort)];
  const child = spawnIn(namespace, argv, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [{ port }, server] = (await within(once(child, 'message'), `a socket that listens in ${namespace}`)) as [
    { readonly port: number },
    Server,
  ];
  child.disconnect();
  const openSockets = new Set<Socket>();
  server.on('connection', (near) => {
    const far = connect(target, '127.0.0.1');
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      openSockets.add(from);
      from.on('error', () => {});
      from.once('close', () => {
        openSockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  return {
    port,
    close: () => {
      server.close();
      for (const socket of openSockets) socket.destroy();
    },
  };
}
