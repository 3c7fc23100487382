import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Removes the files that are directly in `folder` and were last changed more than `ageMs` before `nowMs`. Rejects with the system's error. */
export async function removeOldFiles(folder: string, ageMs: number, nowMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const found = await stat(path).catch(() => undefined);
    // A folder is none of ours.
    if (found?.isFile() === true && nowMs - found.mtimeMs > ageMs) await rm(path, { force: true });
  }
}
