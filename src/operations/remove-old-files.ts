import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Removes what is directly in `folder` and was last changed more than `ageMs` before `nowMs`. Rejects with the system's error. */
export async function removeOldFiles(folder: string, ageMs: number, nowMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const changedMs = (await stat(path).catch(() => undefined))?.mtimeMs ?? Number.POSITIVE_INFINITY;
    if (nowMs - changedMs > ageMs) await rm(path, { force: true });
  }
}
