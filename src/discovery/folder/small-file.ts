import { constants, type BigIntStats } from 'node:fs';
import { OUT_OF_FILES } from '../../http/request-error.ts';
import { errorCode } from '../../base/errors.ts';
import type { FileSystem } from './file-system.ts';

/** Registrations and service files have a few hundred bytes. */
const MAX_FILE_BYTES = 64 * 1024;

/**
 * NOFOLLOW: a link would let the directory's owner pass off another user's file. NONBLOCK and
 * NOCTTY: a listed file may have been replaced by a FIFO or a terminal before it is opened.
 */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;

export type SmallFile =
  /** `stats` are from the open file, so they describe what was read. */
  { readonly content: Uint8Array; readonly stats: BigIntStats } | { readonly problem: string };

/** Why a file is not read, or undefined if it may be. */
export function unreadable(stats: BigIntStats): string | undefined {
  if (!stats.isFile()) return `is ${kind(stats)}, not a regular file; ignored`;
  if (stats.size > MAX_FILE_BYTES) return `has ${stats.size} bytes, more than the limit of ${MAX_FILE_BYTES}; ignored`;
  return undefined;
}

/** Reads a small regular file and never blocks on it. Undefined if it is gone. Rejects only if this process is out of file descriptors. */
export async function readSmallFile(path: string, fs: FileSystem): Promise<SmallFile | undefined> {
  try {
    const handle = await fs.open(path, OPEN_FLAGS);
    try {
      const stats = await handle.stat({ bigint: true });
      const problem = unreadable(stats);
      if (problem !== undefined) return { problem };
      // Reads at most the size seen before: if the file grows meanwhile, it is invalid JSON now and read again by the next scan.
      const buffer = Buffer.allocUnsafe(Number(stats.size));
      let length = 0;
      while (length < buffer.length) {
        const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      return { content: buffer.subarray(0, length), stats };
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') return undefined;
    if (code === 'ELOOP') return { problem: 'is a symbolic link, not a regular file; ignored' };
    if (code === 'EACCES' || code === 'EPERM')
      return { problem: `cannot be read: ${code}; give the user of this program read permission` };
    // The file may be fine: leaving it out would make the scan partial.
    if (code === undefined || OUT_OF_FILES.has(code)) throw error;
    return { problem: `cannot be read: ${code}` };
  }
}

function kind(stats: BigIntStats): string {
  if (stats.isSymbolicLink()) return 'a symbolic link';
  if (stats.isDirectory()) return 'a folder';
  if (stats.isFIFO()) return 'a FIFO';
  if (stats.isSocket()) return 'a socket';
  return 'a device';
}
