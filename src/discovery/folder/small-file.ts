import { constants, type BigIntStats } from 'node:fs';
import { OUT_OF_FILES } from '../../http/request-error.ts';
import { fileErrorCode, type FileSystem } from './file-system.ts';

/** What a source reads has a few hundred bytes; a file this long is something else. */
const MAX_FILE_BYTES = 64 * 1024;

/**
 * NOFOLLOW: a link would let the directory's owner pass off another user's file. NONBLOCK and
 * NOCTTY: what was a file when it was listed may be a FIFO or a terminal when it is opened.
 */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;

export type SmallFile =
  /** `stats` are of the very file that was read. */
  { readonly content: Uint8Array; readonly stats: BigIntStats } | { readonly problem: string };

/** What stands against reading a file of these facts, or undefined. */
export function unreadable(stats: BigIntStats): string | undefined {
  if (!stats.isFile()) return `is ${kind(stats)}, not a regular file; ignored`;
  if (stats.size > MAX_FILE_BYTES)
    return `has ${stats.size} bytes, more than the ${MAX_FILE_BYTES} of any such file; ignored`;
  return undefined;
}

/** Reads a small regular file without ever blocking on it. Undefined when it is gone. Rejects only where this process has no file free. */
export async function readSmallFile(path: string, fs: FileSystem): Promise<SmallFile | undefined> {
  try {
    const handle = await fs.open(path, OPEN_FLAGS);
    try {
      const stats = await handle.stat({ bigint: true });
      const problem = unreadable(stats);
      if (problem !== undefined) return { problem };
      // No longer than its size was, though it may grow meanwhile: what is cut off then is no JSON, and the next scan sees a new size.
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
    const code = fileErrorCode(error);
    if (code === 'ENOENT') return undefined;
    if (code === 'ELOOP') return { problem: 'is a symbolic link, not a regular file; ignored' };
    if (code === 'EACCES' || code === 'EPERM')
      return { problem: `cannot be read: ${code}; give the user of this program read permission` };
    // Nothing is wrong with the file: a scan without it would be a part.
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
