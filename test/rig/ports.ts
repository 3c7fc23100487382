import { createServer } from 'node:net';

/**
 * Below the ephemeral range (32768 up on Linux), so that no outgoing connection takes a port between
 * the check and its use, and above 10080, the highest port that the WHATWG list forbids to fetch.
 */
const LOWEST = 15_000;
const HIGHEST = 31_999;
const ATTEMPTS = 200;

const given = new Set<number>();

/** A port on 127.0.0.1 that nothing listens on, and that this process was not given before. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST + 1));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port in ${LOWEST} to ${HIGHEST} in ${ATTEMPTS} attempts`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => resolve(true)));
  });
}
