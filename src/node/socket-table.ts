import { readlinkSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';

/** One TCP socket of this network namespace. */
export interface SocketRow {
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  readonly listening: boolean;
  readonly uid: number;
  /** `0`: no process holds it any more. The kernel then also gives uid 0, whoever it was (seen on Linux 6). */
  readonly inode: string;
}

interface SocketEnd {
  /** As the kernel writes it: hexadecimal, each 32 bits in the machine's byte order. */
  readonly address: string;
  readonly port: number;
}

const LISTEN = '0A';

/** Of the process's own network namespace; `/proc/net` leads there too, but is missing with `ProcSubset=pid`. */
const TABLES = ['/proc/self/net/tcp', '/proc/self/net/tcp6'] as const;

/** Every TCP socket, or undefined where the system has no such table. */
export async function readSocketTable(): Promise<readonly SocketRow[] | undefined> {
  const texts = await Promise.all(TABLES.map((path) => readFile(path, 'utf8').catch(() => undefined)));
  if (texts[0] === undefined) return undefined;
  return texts.flatMap((text) => parseSocketTable(text ?? ''));
}

/** Fields of a row: number, local, remote, state, queues, timer, retransmits, uid, timeout, inode, … */
export function parseSocketTable(text: string): readonly SocketRow[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): SocketRow[] => {
      const fields = line.trim().split(/\s+/);
      const local = endOf(fields[1]);
      const remote = endOf(fields[2]);
      const uid = Number(fields[7]);
      const inode = fields[9];
      if (local === undefined || remote === undefined || inode === undefined || !Number.isInteger(uid)) return [];
      return [{ local, remote, listening: fields[3] === LISTEN, uid, inode }];
    });
}

function endOf(text = ''): SocketEnd | undefined {
  const match = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/i.exec(text);
  return match?.[1] === undefined ? undefined : { address: match[1], port: Number.parseInt(match[2] ?? '', 16) };
}

/** A process that holds a socket. */
export interface SocketHolder {
  /** `/proc/<pid>/comm`. */
  readonly name: string;
  /** The descriptor's link in /proc: it leads to the socket for as long as the process holds it. */
  readonly link: string;
}

/** The processes that hold the socket, as far as this user may look. Looks through every descriptor: milliseconds. */
export async function holdersOf(inode: string): Promise<readonly SocketHolder[]> {
  const holders: SocketHolder[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}/fd`;
    // Another user's, or gone.
    const links = (await readdir(folder).catch(() => [])).map((fd) => `${folder}/${fd}`);
    const held = await Promise.all(links.map((link) => leadsTo(link, inode)));
    const link = links[held.indexOf(true)];
    if (link === undefined) continue;
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined);
    if (name !== undefined) holders.push({ name: name.trim(), link });
  }
  return holders;
}

/** Whether a descriptor's link still leads to the socket. At once: the kernel answers from memory, and a turn of the thread pool takes longer. */
export function stillHeld(link: string, inode: string): boolean {
  try {
    return readlinkSync(link) === `socket:[${inode}]`;
  } catch {
    return false;
  }
}

async function leadsTo(link: string, inode: string): Promise<boolean> {
  return (await readlink(link).catch(() => '')) === `socket:[${inode}]`;
}
