import { watch, type BigIntStats, type FSWatcher } from 'node:fs';
import { lstat, open, readdir, readlink, stat, type FileHandle } from 'node:fs/promises';

/** The calls of the folder sources; tests replace them for what a real disk does not do on command. */
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
  // Not persistent: a watch must not keep the process alive.
  watch: (path, onEvent) => watch(path, { persistent: false }, onEvent),
};

/**
 * Distinguishes a directory from one that replaced it. Includes the birth time because file
 * systems reuse the inode number of a removed directory.
 */
export function fileIdentity(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.birthtimeNs}`;
}
