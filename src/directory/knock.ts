import { connect } from 'node:net';

import { addressOf } from './endpoint-key.ts';

/** Addresses that no proxy stands before, whatever the environment says. */
const LOCAL_HOSTS = new Set(['127.0.0.1', 'localhost', '::1']);

/**
 * Whether a port of this machine refuses connections; false where it does not, where it takes longer than `signal` allows,
 * and for any other machine. Registries keep thousands of dead registrations: undici holds about 20 KB for each address
 * that it ever tried, and takes several times as long to say the same.
 */
export function isRefused(url: string, signal: AbortSignal): Promise<boolean> {
  const { host, port } = addressOf(url);
  if (!LOCAL_HOSTS.has(host)) return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (refused: boolean): void => {
      signal.removeEventListener('abort', abort);
      socket.destroy();
      resolve(refused);
    };
    const abort = (): void => end(false);
    socket.once('connect', () => end(false));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
  });
}
