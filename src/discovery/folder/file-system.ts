import { watch, type BigIntStats, type FSWatcher } from 'node:fs';
import { lstat, open, readdir, readlink, stat, type FileHandle } from 'node:fs/promises';

/** The calls that sources over folders make, so that a test can show it what a real disk will not do on command. */
export interface FileSystem {
  readonly lstat: (path: string) => Promise<BigIntStats>;
  readonly stat: (path: string) => Promise<BigIntStats>;
  readonly readdir: (path: string) => Promise<string[]>;
  readonly readlink: (path: string) => Promise<string>;
  readonly open: (path: string, flags: number) => Promise<FileHandle>;
  readonly watch: (path: string, onEvent: (event: string, fileName: string | null) => void) => FSWatcher;
}

export const nodeFileSystem: FileSystem = {
  lstat: (path) => lstat(path, { bigint: true }),
  stat: (path) => stat(path, { bigint: true }),
  readdir: (path) => readdir(path),
  readlink: (path) => readlink(path),
  open: (path, flags) => open(path, flags),
  // Not persistent: whether the process lives on is for the client's connection to say, not for a hint.
  watch: (path, onEvent) => watch(path, { persistent: false }, onEvent),
};

/** The `code` of a system error, or undefined. */
export function fileErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Tells one directory from another that took its place. The birth time is in it because file
 * systems give the inode number of a removed directory to the next one made.
 */
export function fileIdentity(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.birthtimeNs}`;
}
