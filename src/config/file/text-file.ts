import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errorCode } from '../../base/errors.ts';

// A config file is a few kilobytes; this only keeps a wrong path (/dev/zero, a disk image) from filling the memory.
const MAX_BYTES = 1024 * 1024;

export interface TextFile {
  readonly text: string;
  /** Permission bits; undefined where the system has none (Windows). */
  readonly mode?: number;
}

/** Reads a whole text file, or throws a system error with its `code`. */
export type ReadTextFile = (path: string) => TextFile;

/** The reader for the program itself. More than 1 MiB throws `EFBIG`, a named pipe and its like `EINVAL`. */
export const readTextFile: ReadTextFile = (path) => {
  // What a shell puts there (`--config <(sops -d …)`) has a writer; a named pipe may wait for one for ever.
  const isShells = path.startsWith('/dev/');
  const descriptor = openSync(path, constants.O_RDONLY | (isShells ? 0 : constants.O_NONBLOCK));
  try {
    const stats = fstatSync(descriptor);
    if (!isShells && !stats.isFile() && !stats.isDirectory())
      throw Object.assign(new Error(`${path} is not a regular file`), { code: 'EINVAL' });
    const bytes = Buffer.alloc(MAX_BYTES + 1);
    let length = 0;
    for (;;) {
      const read = readSync(descriptor, bytes, length, bytes.length - length, null);
      if (read === 0) break;
      length += read;
      if (length > MAX_BYTES)
        throw Object.assign(new Error(`${path} is larger than ${MAX_BYTES} bytes`), { code: 'EFBIG' });
    }
    const text = bytes.toString('utf8', 0, length);
    return process.platform === 'win32' ? { text } : { text, mode: stats.mode & 0o777 };
  } finally {
    closeSync(descriptor);
  }
};

/** Why a file could not be read, without anything of its content. */
export function readFailure(error: unknown): string {
  const code = errorCode(error) ?? 'unknown error';
  return REASONS.get(code) ?? code;
}

const REASONS = new Map([
  ['ENOENT', 'no such file'],
  ['EACCES', 'permission denied'],
  ['EISDIR', 'it is a folder'],
  ['EFBIG', 'it is too large'],
  ['EINVAL', 'it is not a regular file'],
  ['ENXIO', 'it is not a regular file'],
]);

/** A path as a person writes it, made absolute: `~/` is the home folder, a relative one starts at `base`. */
export function resolvePath(written: string, home: string, base: string): string {
  if (written === '~') return home;
  return written.startsWith('~/') ? join(home, written.slice(2)) : resolve(base, written);
}
