import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { errorCode } from '../base/errors.ts';

/** On macOS; Linux has four more. Node cuts a longer path off, and the socket would be another one, somewhere else. */
const MAX_SOCKET_BYTES = 103;
/** Between finding that nobody answers and removing the file lies one system call, on a busy machine too. */
const REMOVED_BY_ALL_MS = 1_000;

/**
 * Makes sure that one process at a time notifies by what is kept in a folder: the node service and `watch` may both run. A socket and not a
 * file: it is gone with its process. Gives what lets go of it; undefined where another process has it.
 * @throws the system's error where no socket can be there
 */
export async function holdNotifying(folder: string): Promise<(() => Promise<void>) | undefined> {
  const path = join(folder, 'running.sock');
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_BYTES)
    throw new Error(`${path} has ${bytes} bytes; a socket's path has at most ${MAX_SOCKET_BYTES}`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const held = await listen(path);
  if (held !== undefined || (await isAnswered(path))) return held;
  // What a killed process left. After a restart of the machine several find it at once: each has removed it before one listens.
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
