import { randomInt } from 'node:crypto';
import { connect, createServer } from 'node:net';
import { badPortReason } from '../../base/urls.ts';
import { errorCode, messageOf } from '../../base/errors.ts';
import { ReportedError } from '../../base/program.ts';

export const LOWEST_PORT = 4096;
export const HIGHEST_PORT = 5095;
/** Loopback answers a connect at once, unless the backlog is full, and then the port is in use. */
const CONNECT_LIMIT_MS = 1_000;

/**
 * A port on which nothing listens, neither on loopback nor at `host`. Starts at a random one, so that two starts at once seldom collide.
 * @param not ports that turned out to be taken
 */
export async function choosePort(host: string, not: ReadonlySet<number> = new Set()): Promise<number> {
  const count = HIGHEST_PORT - LOWEST_PORT + 1;
  const first = randomInt(count);
  for (let step = 0; step < count; step += 1) {
    const port = LOWEST_PORT + ((first + step) % count);
    if (not.has(port) || badPortReason(port) !== undefined) continue;
    if (await isFree(port, host)) return port;
  }
  throw new Error(
    `every port from ${LOWEST_PORT} to ${HIGHEST_PORT} is in use; end some of those programs and start again`,
  );
}

/** The error for the configured port of the LAN. */
export function cannotListen(port: number, cause?: unknown): ReportedError {
  const code = cause === undefined ? '' : ` (${errorCode(cause) ?? messageOf(cause)})`;
  return new ReportedError(
    `cannot listen on port ${port}${code}: another process does, or this user may not; end it, or set OPENCODE_LAN_PORT to another`,
    { cause },
  );
}

/** Binding alone is not enough on macOS, which lets it succeed beside a wildcard listener. */
export async function isFree(port: number, host: string): Promise<boolean> {
  return (await listenerOn(port)) === 'none' && (await canBind(port, host));
}

/** Whether anything accepts connections on `port` of this machine's loopback. */
export function listenerOn(port: number): Promise<'some' | 'none' | 'unknown'> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    const settle = (found: 'some' | 'none' | 'unknown'): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(found);
    };
    const timer = setTimeout(() => settle('unknown'), CONNECT_LIMIT_MS);
    socket.once('connect', () => settle('some'));
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code === 'ECONNREFUSED' ? 'none' : 'unknown'));
  });
}

function canBind(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
