import { basename, dirname, relative, sep } from 'node:path';
import type { FSWatcher } from 'node:fs';
import type { Logger } from '../../base/log.ts';
import { errorCode } from '../../base/errors.ts';
import { fileIdentity, type FileSystem } from './file-system.ts';

export interface DirectoryWatchOptions {
  /** Absolute; need not exist. */
  readonly path: string;
  /** Which of the directory's entries matter. */
  readonly isRelevant: (fileName: string) => boolean;
  /** An entry or the directory itself may have changed, or earlier changes may have been missed. */
  readonly onChange: () => void;
  readonly fs: FileSystem;
  readonly logger: Logger;
}

/** The directory itself, or the nearest existing folder above it. */
interface Target {
  readonly path: string;
  readonly identity: string;
}

/**
 * Watches a directory that may be missing, removed or replaced. If the system refuses to watch,
 * that is logged once; polling finds what the watch misses.
 */
export class DirectoryWatch {
  readonly #options: DirectoryWatchOptions;
  #watcher: FSWatcher | undefined;
  #target: Target | undefined;
  /** The kernel dropped the watch: arm again even if the path has the same inode number. */
  #stale = false;
  #arming: Promise<void> | undefined;
  #again = false;
  #refusalLogged = false;
  #closed = false;

  constructor(options: DirectoryWatchOptions) {
    this.#options = options;
    this.verify();
  }

  /**
   * Moves the watch to whatever is at the path now. Also called by the owner after a scan, because
   * a changed symbolic link or a moved parent sends no event.
   */
  verify(): void {
    if (this.#closed) return;
    this.#again = true;
    this.#arming ??= this.#armUntilSettled();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#disarm();
    await this.#arming;
  }

  async #armUntilSettled(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false;
      try {
        await this.#arm();
      } catch (error) {
        this.#refused(error);
      }
    }
    this.#arming = undefined;
  }

  async #arm(): Promise<void> {
    const target = await this.#nearest();
    if (this.#closed || (!this.#stale && isSame(this.#target, target))) return;
    this.#disarm();
    const watcher = this.#options.fs.watch(target.path, (event, fileName) => this.#onEvent(target, event, fileName));
    watcher.on('error', (error) => {
      this.#disarm();
      this.#refused(error);
    });
    this.#watcher = watcher;
    this.#target = target;
    // Something may have been created at the path before the watch began.
    if (!isSame(await this.#nearest(), target)) this.#again = true;
    if (!this.#closed) this.#options.onChange();
  }

  #onEvent(target: Target, event: string, fileName: string | null): void {
    if (this.#closed) return;
    const { path, isRelevant, onChange } = this.#options;
    // The event for a move or removal of the watched directory has the directory's own name.
    const isOwnName = fileName === null || fileName === basename(target.path);
    if (isOwnName && event === 'rename') this.#stale = true;
    if (target.path === path) {
      if (isOwnName || isRelevant(fileName)) onChange();
      if (isOwnName) this.verify();
    } else if (isOwnName || fileName === relative(target.path, path).split(sep)[0]) {
      // The new watch will call `onChange`.
      this.verify();
    }
  }

  async #nearest(): Promise<Target> {
    for (let path = this.#options.path; ; path = dirname(path)) {
      try {
        return { path, identity: fileIdentity(await this.#options.fs.stat(path)) };
      } catch (error) {
        const code = errorCode(error);
        if ((code !== 'ENOENT' && code !== 'ENOTDIR') || path === dirname(path)) throw error;
      }
    }
  }

  #disarm(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#target = undefined;
    this.#stale = false;
  }

  /** Mostly ENOSPC or EMFILE: the limits on inotify watches and instances are per user and small. */
  #refused(error: unknown): void {
    if (this.#closed || this.#refusalLogged) return;
    this.#refusalLogged = true;
    this.#options.logger.log('info', 'cannot watch the directory; changes are found by polling', {
      path: this.#options.path,
      reason: errorCode(error) ?? String(error),
    });
  }
}

function isSame(one: Target | undefined, other: Target): boolean {
  return one?.path === other.path && one.identity === other.identity;
}
