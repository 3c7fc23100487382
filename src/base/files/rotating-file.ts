import { appendFileSync, chmodSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { appendFile, chmod, mkdir, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

import { errorCode } from '../errors.ts';

/** About ten thousand lines. */
const MAX_BYTES = 1024 * 1024;

const FOLDER = { recursive: true, mode: 0o700 } as const;
const FILE_MODE = 0o600;

/**
 * A log file that only this user can read; a full one is renamed to `.1`. Several processes may append at the same time. Errors of
 * the file system are thrown.
 */
export class RotatingFile {
  readonly path: string;
  readonly #maxBytes: number;

  constructor(path: string, maxBytes = MAX_BYTES) {
    this.path = path;
    this.#maxBytes = maxBytes;
  }

  async append(text: string): Promise<void> {
    await mkdir(dirname(this.path), FOLDER);
    const size = (await stat(this.path).catch(() => undefined))?.size ?? 0;
    if (size >= this.#maxBytes) {
      await rename(this.path, this.#previous).catch(unlessMissing);
      await chmod(this.#previous, FILE_MODE);
    }
    await appendFile(this.path, text, { mode: FILE_MODE });
  }

  /** For a few lines, none of which may be lost when the process ends. */
  appendSync(text: string): void {
    mkdirSync(dirname(this.path), FOLDER);
    const size = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    if (size >= this.#maxBytes) {
      try {
        renameSync(this.path, this.#previous);
      } catch (error) {
        unlessMissing(error);
      }
      chmodSync(this.#previous, FILE_MODE);
    }
    appendFileSync(this.path, text, { mode: FILE_MODE });
  }

  get #previous(): string {
    return `${this.path}.1`;
  }
}

/** Another process may have renamed the full file a moment ago. */
function unlessMissing(error: unknown): void {
  if (errorCode(error) !== 'ENOENT') throw error;
}
