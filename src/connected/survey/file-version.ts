import type { BigIntStats } from 'node:fs';

/** The same for as long as the file is neither replaced nor written; moving it changes nothing. */
export function fileVersion({ dev, ino, mtimeNs, size }: BigIntStats): string {
  return `${dev}:${ino}:${mtimeNs}:${size}`;
}
