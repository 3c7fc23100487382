import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import process from 'node:process';

import { spawnIn } from './namespaces.ts';
import { within } from './wait.ts';

/** Listens on loopback ports and passes what comes to sockets in the file system, which all namespaces share. */
const LISTENER = `
const net = require('node:net');
const ports = process.argv.slice(1).map((pair) => pair.split('='));
let left = ports.length;
for (const [port, path] of ports)
  net.createServer((one) => {
    const other = net.connect(path);
    one.pipe(other).pipe(one);
    for (const socket of [one, other]) socket.on('error', () => { one.destroy(); other.destroy(); });
  }).listen(Number(port), '127.0.0.1', () => { left -= 1; if (left === 0) console.log('listening'); });
process.stdin.resume().on('end', () => process.exit(0));
`;

/** Makes loopback ports of this namespace reachable under the same numbers on the loopback of another, which has no way out. */
export async function portsIntoNamespace(
  namespace: string,
  folder: string,
  ports: readonly number[],
): Promise<AsyncDisposable> {
  const servers: Server[] = [];
  const pairs: string[] = [];
  for (const port of ports) {
    const path = join(folder, `${port}.sock`);
    const server = createServer((one) => {
      const other = connect(port, '127.0.0.1');
      one.pipe(other).pipe(one);
      for (const socket of [one, other])
        socket.on('error', () => {
          one.destroy();
          other.destroy();
        });
    });
    server.listen(path);
    await once(server, 'listening');
    servers.push(server);
    pairs.push(`${port}=${path}`);
  }
  const child = spawnIn(namespace, [process.execPath, '-e', LISTENER, '--', ...pairs], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  if (child.stdout !== null) await within(once(child.stdout, 'data'), 'the ports in the namespace');
  return {
    async [Symbol.asyncDispose]() {
      child.stdin?.end();
      await once(child, 'exit');
      for (const server of servers) server.close();
    },
  };
}
