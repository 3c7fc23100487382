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

/** Claude Code's file holds its history of projects and grows; this only keeps a wrong file from filling the memory. */
const MAX_BYTES = 64 * 1024 * 1024;

/** Files may hold keys, and a new one does not tell who may read it. */
const NEW_FILE_MODE = 0o600;

/** Claude Code holds its lock for some milliseconds; 50 times 100 ms outlasts several of them. */
const LOCK_TRIES = 50;
const LOCK_RETRY_MS = 100;

/** Beside the file: what it was before the last change. */
export function backupOf(path: string): string {
  return `${path}.before-opencode-mcp`;
}

/** The text of a file, or undefined where there is none. A link to nothing, and what is no file, is an `EditError`. */
export async function readConfigText(path: string): Promise<string | undefined> {
  const link = await lstat(path).catch((error: unknown) => unlessMissing(error));
  if (link === undefined) return undefined;
  const stats = await stat(path).catch((error: unknown) => unlessMissing(error));
  if (stats === undefined) throw new EditError('it is a link to a file that does not exist');
  if (!stats.isFile()) throw new EditError('it is no regular file');
  if (stats.size > MAX_BYTES) throw new EditError(`it is larger than ${MAX_BYTES} bytes`);
  const bytes = await readFile(path);
  const text = bytes.toString('utf8');
  // Written back it would be another file.
  if (!bytes.equals(Buffer.from(text))) throw new EditError('it is not UTF-8');
  return text;
}

export interface Rewrite {
  /** Waits so many ms. */
  readonly pause: (ms: number) => Promise<unknown>;
  /** Whether its client holds `<file>.lock` while it writes. */
  readonly locks: boolean;
  /** The new text, made of what the file holds now (undefined: there is none), or undefined to leave it. */
  readonly change: (text: string | undefined) => string | undefined;
}

/**
 * Reads, changes and replaces a file: a copy of it is left beside it, and the new one, with its mode and owner, takes its name in
 * one step. Links stay; the file that they lead to is replaced. Gives the path of the copy, if there was a file.
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

async function replaceFile(target: string, text: string, isThere: boolean): Promise<void> {
  const temporary = `${target}.${process.pid}.tmp`;
  const old = isThere ? await stat(target) : undefined;
  try {
    const file = await open(temporary, 'wx', NEW_FILE_MODE);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    if (old !== undefined) {
      // Before the mode: it takes set-id bits away. Only root may give a file to somebody else.
      await chown(temporary, old.uid, old.gid).catch(() => {});
      await chmod(temporary, old.mode & 0o7777);
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** As Claude Code locks its file: making the folder `<file>.lock` takes the lock; if the file is a link, beside the link. */
async function lock(path: string, pause: Rewrite['pause']): Promise<() => Promise<void>> {
  const folder = `${path}.lock`;
  for (let tries = 1; ; tries += 1) {
    try {
      await mkdir(folder);
      return () => rmdir(folder).catch(() => {});
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
      if (tries === LOCK_TRIES)
        throw new EditError(`its client holds it (${folder}); end that client, or remove that folder where none runs`);
      await pause(LOCK_RETRY_MS);
    }
  }
}

/** For a file operation's `catch`. ENOTDIR: a file is in the place of a folder above. */
export function unlessMissing(error: unknown): undefined {
  const code = errorCode(error);
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
}
