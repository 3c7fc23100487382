import { appendFileSync, chmodSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { appendFile, chmod, mkdir, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Some ten thousand lines. */
const MAX_BYTES = 1024 * 1024;

const FOLDER = { recursive: true, mode: 0o700 } as const;
const FILE_MODE = 0o600;

/**
 * A file of lines for this user's eyes only, and the one before it with `.1` behind. Several processes may write to one: a
 * piece is appended whole. Both ways to append throw what the file system says.
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
      await rename(this.path, this.#previous);
      await chmod(this.#previous, FILE_MODE);
    }
    await appendFile(this.path, text, { mode: FILE_MODE });
  }

  /** For a line or two a minute, of which none may be lost when the process ends. */
  appendSync(text: string): void {
    mkdirSync(dirname(this.path), FOLDER);
    const size = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    if (size >= this.#maxBytes) {
      renameSync(this.path, this.#previous);
      chmodSync(this.#previous, FILE_MODE);
    }
    appendFileSync(this.path, text, { mode: FILE_MODE });
  }

  get #previous(): string {
    return `${this.path}.1`;
  }
}
