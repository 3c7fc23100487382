import { readdir, readFile, readlink } from 'node:fs/promises';

/**
 * Belongs in the environment of every server that a test or a benchmark starts outside a network namespace, so that it sends nothing to
 * the machine's real LAN. `no-multicast.test.ts` checks that.
 */
export const NO_MULTICAST = { OPENCODE_MDNS_INTERFACES: 'none' } as const;

/** Port 5353 in hexadecimal, as in /proc. */
const MDNS_PORT = ':14E9';

/** The number of mDNS sockets of a process. Linux only: reads /proc. */
export async function mdnsSocketsOf(pid: number): Promise<number> {
  const tables = await Promise.all(['udp', 'udp6'].map((table) => readFile(`/proc/${pid}/net/${table}`, 'utf8')));
  const rows = tables.flatMap((table) => table.split('\n').slice(1)).map((line) => line.trim().split(/\s+/));
  const inodes = new Set(rows.filter((row) => row[1]?.endsWith(MDNS_PORT)).map((row) => `socket:[${row[9]}]`));
  const descriptors = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  return links.filter((link) => inodes.has(link)).length;
}
