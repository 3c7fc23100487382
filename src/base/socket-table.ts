import { execFile } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { open, readdir, readFile, readlink } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { endianness } from 'node:os';

/** One TCP socket of this network namespace. */
export interface SocketRow {
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  readonly listening: boolean;
  readonly uid: number;
  /** `0`: no process holds it any more; the uid is then 0 too, whatever it was (Linux 6). */
  readonly inode: string;
  /** Set by `lsof` only; otherwise call `holdersOf`. */
  readonly holder?: SocketHolder;
}

interface SocketEnd {
  /** In the kernel's notation: hexadecimal, each 32 bits in the machine's byte order. */
  readonly address: string;
  readonly port: number;
}

const LISTEN = '0A';

/** `/proc/net` is the same, but missing under `ProcSubset=pid`. */
const TABLES = ['/proc/self/net/tcp', '/proc/self/net/tcp6'] as const;

/** Every TCP socket of this network namespace, or undefined if the system has no such table. */
export async function readSocketTable(): Promise<readonly SocketRow[] | undefined> {
  const texts = await Promise.all(TABLES.map((path) => readFile(path, 'utf8').catch(() => undefined)));
  if (texts[0] === undefined) return undefined;
  return texts.flatMap((text) => parseSocketTable(text ?? ''));
}

/** The kernel returns at most a page for each read. */
const CHUNK_BYTES = 4096;

/** `lsof` takes tens of milliseconds. */
const LSOF_LIMIT_MS = 3000;
const MAX_LSOF_BYTES = 8 * 1024 * 1024;

/**
 * Every listening TCP socket that this user may see, or undefined if unknown. The kernel lists them first, and the rest is not
 * read: 2 ms instead of 28 for a table with 5,000 connections (Linux 6.18).
 */
export async function readListeners(): Promise<readonly SocketRow[] | undefined> {
  const [ipv4, ipv6] = await Promise.all(TABLES.map((path) => readListening(path).catch(() => undefined)));
  return ipv4 === undefined ? lsofListeners() : [...ipv4, ...(ipv6 ?? [])];
}

async function readListening(path: string): Promise<readonly SocketRow[]> {
  const file = await open(path);
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const found: SocketRow[] = [];
    let rest = '';
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, null);
      const text = rest + chunk.toString('latin1', 0, bytesRead);
      const end = text.lastIndexOf('\n') + 1;
      rest = text.slice(end);
      const rows = parseSocketTable(text.slice(0, end));
      found.push(...rows.filter(({ listening }) => listening));
      if (bytesRead === 0 || rows.at(-1)?.listening === false) return found;
    }
  } finally {
    await file.close();
  }
}

/** For macOS. Without root, it shows only this user's sockets. */
function lsofListeners(): Promise<readonly SocketRow[] | undefined> {
  const limits = { timeout: LSOF_LIMIT_MS, killSignal: 'SIGKILL', maxBuffer: MAX_LSOF_BYTES } as const;
  return new Promise((resolve) => {
    execFile('lsof', ['-nP', '-iTCP', '-sTCP:LISTEN', '-Fpcutn'], limits, (error, stdout) =>
      // Status 1: no visible socket.
      resolve(error !== null && error.code !== 1 ? undefined : parseLsof(stdout)),
    );
  });
}

/** One field on each line: `p`, `c` (command) and `u` of a process, then `t` (IPv4 or IPv6) and `n` (`*:4096`, `[::1]:4096`) of each of its sockets. */
export function parseLsof(text: string): readonly SocketRow[] {
  const rows: SocketRow[] = [];
  const last = new Map<string, string>();
  for (const line of text.split('\n')) {
    last.set(line.slice(0, 1), line.slice(1));
    const [, host, port] = /^n\[?([^\]]+?)\]?:(\d+)$/.exec(line) ?? [];
    if (host === undefined) continue;
    const address = kernelAddress(host === '*' ? (last.get('t') === 'IPv6' ? '::' : '0.0.0.0') : host);
    const remote = { address: '', port: 0 };
    const uid = Number(last.get('u') ?? -1);
    const holder = { pid: Number(last.get('p')), name: last.get('c') ?? '', link: '' };
    rows.push({ local: { address, port: Number(port) }, remote, listening: true, uid, inode: 'unknown', holder });
  }
  return rows;
}

/** An address in the notation of the kernel's tables. */
export function kernelAddress(address: string): string {
  const bytes = isIPv4(address) ? address.split('.').map(Number) : bytesOfIPv6(address);
  const words = Array.from({ length: bytes.length / 4 }, (_, index) => bytes.slice(4 * index, 4 * index + 4));
  return words
    .flatMap((word) => (endianness() === 'LE' ? word.toReversed() : word))
    .map((byte) => byte.toString(16).toUpperCase().padStart(2, '0'))
    .join('');
}

function bytesOfIPv6(address: string): number[] {
  // Without the zone (`fe80::1%eth0`). The last 32 bits may be written as IPv4.
  const [bare = ''] = address.split('%');
  const plain = bare.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = parts.slice(0, 4).map(Number);
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  });
  const [head = [], tail = []] = plain.split('::').map((half) => half.split(':').filter(Boolean));
  const zeros = Array.from({ length: Math.max(0, 8 - head.length - tail.length) }, () => '0');
  return [...head, ...zeros, ...tail].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}

/** Fields of a row: number, local, remote, state, queues, timer, retransmits, uid, timeout, inode, … */
export function parseSocketTable(text: string): readonly SocketRow[] {
  return text.split('\n').flatMap((line): SocketRow[] => {
    const fields = line.trim().split(/\s+/);
    const local = endOf(fields[1]);
    const remote = endOf(fields[2]);
    const uid = Number(fields[7]);
    const inode = fields[9];
    // The first line has the column names.
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
  readonly pid: number;
  /** `/proc/<pid>/comm`. */
  readonly name: string;
  /** The descriptor's link in /proc, which leads to the socket as long as the process holds it. Empty on macOS. */
  readonly link: string;
}

/** The processes that hold the socket, as far as visible to this user. Reads every descriptor, which takes milliseconds. */
export async function holdersOf(inode: string): Promise<readonly SocketHolder[]> {
  const holders: SocketHolder[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}/fd`;
    // Fails for processes of other users, and for those that have ended.
    const links = (await readdir(folder).catch(() => [])).map((fd) => `${folder}/${fd}`);
    const targets = await Promise.all(links.map((link) => readlink(link).catch(() => '')));
    const link = links[targets.indexOf(`socket:[${inode}]`)];
    if (link === undefined) continue;
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined);
    if (name !== undefined) holders.push({ pid: Number(pid), name: name.trim(), link });
  }
  return holders;
}

/** The inodes of the sockets that a process holds; none if it has ended or is another user's. */
export async function socketsOf(pid: number): Promise<ReadonlySet<string>> {
  const folder = `/proc/${pid}/fd`;
  const fds = await readdir(folder).catch(() => []);
  const targets = await Promise.all(fds.map((fd) => readlink(`${folder}/${fd}`).catch(() => '')));
  return new Set(targets.flatMap((target) => /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? []));
}

/** Whether a descriptor's link still leads to the socket. Synchronous, because that is faster than Node's thread pool. */
export function stillHeld(link: string, inode: string): boolean {
  try {
    return readlinkSync(link) === `socket:[${inode}]`;
  } catch {
    return false;
  }
}
