import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { errorCode } from '../../base/errors.ts';

// A config file has a few kilobytes; this only stops a wrong path (/dev/zero, a disk image) from filling the memory.
const MAX_BYTES = 1024 * 1024;

export interface TextFile {
  readonly text: string;
  /** Permission bits; undefined on Windows. */
  readonly mode?: number;
}

/** Reads a whole text file, or throws a system error with its `code`. */
export type ReadTextFile = (path: string) => TextFile;

/** Reads from disk. Throws `EFBIG` for more than 1 MiB, `EINVAL` for a named pipe or device. */
export const readTextFile: ReadTextFile = (path) => {
  // A pipe of the shell (`--config <(sops -d …)`) has a writer; any other named pipe could block for ever.
  const isShellPipe = path.startsWith('/dev/');
  const descriptor = openSync(path, constants.O_RDONLY | (isShellPipe ? 0 : constants.O_NONBLOCK));
  try {
    const stats = fstatSync(descriptor);
    if (!isShellPipe && !stats.isFile() && !stats.isDirectory())
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

/** Why a file could not be read; contains nothing of its content. */
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

/** An XDG base directory. The specification says to ignore a relative path. */
export function xdgFolder(variable: string | undefined, fallback: string): string {
  return variable !== undefined && isAbsolute(variable) ? variable : fallback;
}

/** Makes a written path absolute: `~/` is the home folder, a relative one starts at `base`. */
export function resolvePath(written: string, home: string, base: string): string {
  if (written === '~') return home;
  return written.startsWith('~/') ? join(home, written.slice(2)) : resolve(base, written);
}
