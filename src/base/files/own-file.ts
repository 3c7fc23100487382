import { randomUUID } from 'node:crypto';
import { link, lstat, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

import { errorCode } from '../errors.ts';

/**
 * Writes a file that only this user can read (0600), and its folder (0700) if there is none. A reader finds the old content or the
 * whole new one. If `path` is a link, replaces the link, not its target. Rejects if it cannot be written; the old file then stays.
 * @param temporary where the content is written first, if another program has to know that name
 */
export function replaceOwnFile(
  path: string,
  content: string,
  temporary = `${path}.${randomUUID()}.tmp`,
): Promise<void> {
  return placed(path, temporary, content, () => rename(temporary, path));
}

/** As `replaceOwnFile`, but leaves an existing file alone and resolves to false. Of several processes, one creates the file. */
export async function createOwnFile(path: string, content: string | Uint8Array): Promise<boolean> {
  // Writing next to an existing file would fail on a full disk or in a read-only folder.
  if (await isThere(path)) return false;
  const temporary = `${path}.${randomUUID()}.tmp`;
  return await placed(path, temporary, content, () => linkIfFree(temporary, path));
}

/** Makes `path` another name of the file `existing`; false if that name is taken. Unlike a rename, link(2) never replaces a file. */
export async function linkIfFree(existing: string, path: string): Promise<boolean> {
  try {
    await link(existing, path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** A dangling link counts. If it cannot be checked, the attempt to write shows why. */
function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

async function placed<T>(
  path: string,
  temporary: string,
  content: string | Uint8Array,
  place: () => Promise<T>,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    await writeFile(temporary, content, { mode: 0o600 });
    return await place();
  } finally {
    await rm(temporary, { force: true }).catch(() => {});
  }
}
