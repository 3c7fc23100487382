import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { errorCode } from '../base/errors.ts';

/** macOS's limit; Linux allows four more. Node silently cuts a longer path, which would then name another socket. */
const MAX_SOCKET_BYTES = 103;
/** Far longer than another process needs between its failed connect and its rm, on a busy machine too. */
const REMOVED_BY_ALL_MS = 1_000;

/**
 * Makes this process the only one that notifies from this folder, until the returned function is called; undefined if another process
 * already does. The node service and `watch` may both run. A socket serves as the lock, since it ends with its process.
 * @throws the system's error if the socket cannot be created
 */
export async function holdNotifying(folder: string): Promise<(() => Promise<void>) | undefined> {
  const path = join(folder, 'running.sock');
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_BYTES)
    throw new Error(`${path} has ${bytes} bytes; a socket's path has at most ${MAX_SOCKET_BYTES}`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const held = await listen(path);
  if (held !== undefined || (await isAnswered(path))) return held;
  // A killed process left the file. Several processes may find it together after a reboot: all remove it before any listens.
  await rm(path, { force: true });
  await delay(REMOVED_BY_ALL_MS);
  return await listen(path);
}

function listen(path: string): Promise<(() => Promise<void>) | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', (error) => {
      if (errorCode(error) === 'EADDRINUSE') resolve(undefined);
      else reject(error);
    });
    server.listen(path, () => {
      server.unref();
      // Closing removes the file.
      resolve(() => new Promise((done) => server.close(() => done())));
    });
  });
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
