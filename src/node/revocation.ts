import { lstatSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ChangeNotifiers } from '../base/change-notifier.ts';
import type { Clock } from '../base/clock.ts';
import { errorCode } from '../base/errors.ts';
import { replaceOwnFile } from '../base/files/own-file.ts';
import type { Logger } from '../base/log.ts';
import { DirectoryWatch } from '../discovery/folder/directory-watch.ts';
import { type FileSystem, nodeFileSystem } from '../discovery/folder/file-system.ts';

/** While this file exists, nothing of this user is served to other machines or browsers. */
const MARKER = 'node-revoked';
/** For systems that refuse to watch the folder. A check is one system call. */
const POLL_INTERVAL_MS = 500;

export function revocationPath(stateDir: string): string {
  return join(stateDir, MARKER);
}

/** Whether the marker exists. If that cannot be read, it counts as revoked. */
export function isRevoked(stateDir: string): boolean {
  try {
    lstatSync(revocationPath(stateDir));
    return true;
  } catch (error) {
    const code = errorCode(error);
    return code !== 'ENOENT' && code !== 'ENOTDIR';
  }
}

/** Atomic. Rejects if the marker cannot be written. */
export function revoke(stateDir: string, nowMs: number): Promise<void> {
  return replaceOwnFile(revocationPath(stateDir), `${new Date(nowMs).toISOString()}\n`);
}

/** False if nothing was revoked. Rejects if the marker cannot be removed. */
export async function allow(stateDir: string): Promise<boolean> {
  const was = isRevoked(stateDir);
  await rm(revocationPath(stateDir), { force: true });
  return was;
}

export interface RevocationDeps {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly fs?: Pick<FileSystem, 'watch'>;
}

/** Follows the marker, by a watch on its folder and by polling. */
export class Revocation {
  readonly #deps: RevocationDeps;
  readonly #root = new AbortController();
  readonly #watch: DirectoryWatch;
  readonly #changes = new ChangeNotifiers(this.#root.signal);
  #isRevoked: boolean;

  constructor(deps: RevocationDeps) {
    this.#deps = deps;
    this.#isRevoked = isRevoked(deps.stateDir);
    this.#watch = new DirectoryWatch({
      path: deps.stateDir,
      isRelevant: (name) => name === MARKER,
      onChange: () => this.#check(),
      fs: { ...nodeFileSystem, ...deps.fs },
      logger: deps.logger,
    });
    void this.#poll();
  }

  get isRevoked(): boolean {
    return this.#isRevoked;
  }

  /** Resolves once the state is `wanted`, or when `signal` aborts. */
  async until(wanted: 'revoked' | 'allowed', signal: AbortSignal): Promise<void> {
    const changes = this.#changes.open(signal);
    const isSo = (): boolean => this.#isRevoked === (wanted === 'revoked');
    while (!isSo() && !signal.aborted) if ((await changes.next()).done === true) break;
    changes.end();
  }

  async close(): Promise<void> {
    this.#root.abort();
    await this.#watch.close();
  }

  #check(): void {
    const now = isRevoked(this.#deps.stateDir);
    if (now === this.#isRevoked) return;
    this.#isRevoked = now;
    this.#changes.notify();
  }

  async #poll(): Promise<void> {
    while (!this.#root.signal.aborted) {
      await this.#deps.clock.sleep(POLL_INTERVAL_MS, this.#root.signal);
      if (!this.#root.signal.aborted) this.#check();
    }
  }
}
