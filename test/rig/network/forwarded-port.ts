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
 * socket in the namespace, where it stays, and passes it to this process.
 */
export async function forwardInto(namespace: string, target: number, listenPort = 0): Promise<ForwardedPort> {
  const argv = [process.execPath, LISTENER, String(listenPort)];
  const child = spawnIn(namespace, argv, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [{ port }, server] = (await within(once(child, 'message'), `a socket that listens in ${namespace}`)) as [
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
