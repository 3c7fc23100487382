import {
  chmod,
  chown,
  copyFile,
  lstat,
  mkdir,
  open,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
} from 'node:fs/promises';
import { dirname } from 'node:path';

import { errorCode } from '../base/errors.ts';
import { EditError } from './edit-error.ts';

/** Claude Code's file holds its history and grows. The limit only keeps a wrong file out of memory. */
const MAX_BYTES = 64 * 1024 * 1024;

/** Such files may hold keys. */
const NEW_FILE_MODE = 0o600;

/** 5 s in all: Claude Code holds its lock for milliseconds. */
const LOCK_TRIES = 50;
const LOCK_RETRY_MS = 100;

/** The file's copy from before the last change. */
export function backupOf(path: string): string {
  return `${path}.before-opencode-mcp`;
}

/** The text of a file; undefined if it does not exist. @throws {EditError} it cannot be edited, such as a broken link */
export async function readConfigText(path: string): Promise<string | undefined> {
  const link = await lstat(path).catch((error: unknown) => unlessMissing(error));
  if (link === undefined) return undefined;
  const stats = await stat(path).catch((error: unknown) => unlessMissing(error));
  if (stats === undefined) throw new EditError('it is a link to a file that does not exist');
  if (!stats.isFile()) throw new EditError('it is not a regular file');
  if (stats.size > MAX_BYTES) throw new EditError(`it is larger than ${MAX_BYTES} bytes`);
  const bytes = await readFile(path);
  const text = bytes.toString('utf8');
  // Writing it back would change other bytes.
  if (!bytes.equals(Buffer.from(text))) throw new EditError('it is not UTF-8');
  return text;
}

export interface Rewrite {
  readonly pause: (ms: number) => Promise<unknown>;
  /** Whether to take the client's lock, `<file>.lock`. */
  readonly locks: boolean;
  /** Returns the new text for the current one (undefined: no file); undefined leaves the file alone. */
  readonly change: (text: string | undefined) => string | undefined;
}

/**
 * Replaces a file in one step, with the same mode and owner, and leaves a copy of the old one beside it. If the path is a link, its
 * target is replaced. Returns the path of the copy, if there was a file.
 */
export async function rewriteConfig(path: string, { pause, locks, change }: Rewrite): Promise<string | undefined> {
  await mkdir(dirname(path), { recursive: true });
  const unlock = locks ? await lock(path, pause) : undefined;
  try {
    const before = await readConfigText(path);
    const after = change(before);
    if (after === undefined) return undefined;
    const target = before === undefined ? path : await realpath(path);
    const backup = before === undefined ? undefined : backupOf(target);
    if (backup !== undefined) {
      await rm(backup, { force: true });
      await copyFile(target, backup);
    }
    await replaceFile(target, after, before !== undefined);
    return backup;
  } finally {
    await unlock?.();
  }
}

async function replaceFile(target: string, text: string, exists: boolean): Promise<void> {
  const temporary = `${target}.${process.pid}.tmp`;
  const old = exists ? await stat(target) : undefined;
  try {
    const file = await open(temporary, 'wx', NEW_FILE_MODE);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    if (old !== undefined) {
      // Before chmod, because chown clears set-id bits. Only root may change the owner.
      await chown(temporary, old.uid, old.gid).catch(() => {});
      await chmod(temporary, old.mode & 0o7777);
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Claude Code's lock: the process that creates the folder `<file>.lock` holds it. If the file is a link, the folder is beside the link. */
async function lock(path: string, pause: Rewrite['pause']): Promise<() => Promise<void>> {
  const folder = `${path}.lock`;
  for (let tries = 1; ; tries += 1) {
    try {
      await mkdir(folder);
      return () => rmdir(folder).catch(() => {});
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
      if (tries === LOCK_TRIES)
        throw new EditError(
          `its client has locked it (${folder}); end that client, or remove that folder if none runs`,
        );
      await pause(LOCK_RETRY_MS);
    }
  }
}

/** For a file operation's `catch`. ENOTDIR: a file is in the place of a folder above. */
export function unlessMissing(error: unknown): undefined {
  const code = errorCode(error);
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
}
