import { createServer } from 'node:net';

/**
 * The ports lie below the ephemeral range (from 32768 on Linux), so that no outgoing connection takes a port between check and
 * use, and above 10080, the highest port that fetch blocks.
 */
const LOWEST = 15_000;
const HIGHEST = 31_999;
const ATTEMPTS = 200;

const returnedPorts = new Set<number>();

/** A port of 127.0.0.1 without a listener, never returned twice in this process. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST + 1));
    if (returnedPorts.has(port) || !(await isFree(port))) continue;
    returnedPorts.add(port);
    return port;
  }
  throw new Error(`no free port in ${LOWEST} to ${HIGHEST} in ${ATTEMPTS} attempts`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}
