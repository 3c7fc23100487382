import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { jsonOf } from '../../base/errors.ts';
import { linkIfFree } from '../../base/files/own-file.ts';
import { isAlive, type ProcessIdentity } from '../process-table.ts';

const holderSchema = z.object({ pid: z.int(), started: z.string().optional() });

export function lockFolder(stateDir: string): string {
  return join(stateDir, 'service');
}

/** Each try fails only if its holder had just ended, so more means that something else is wrong. */
const MAX_TRIES = 10;

/**
 * Decides which of a user's wrappers registers the one service and holds its tunnel: each terminal has a wrapper. The lock is a file made with
 * link(2), which fails if the file exists. A lock whose process has ended is taken over.
 */
export class ServiceLock {
  readonly #path: string;
  readonly #self: ProcessIdentity;
  #isHeld = false;

  /** @param key which of the user's services; each channel has one */
  constructor(stateDir: string, key: string, self: ProcessIdentity) {
    this.#path = join(lockFolder(stateDir), `${key}.lock`);
    this.#self = self;
  }

  /** Resolves to undefined once the lock is ours, else to its holder. Rejects if the folder cannot be written. */
  async take(): Promise<ProcessIdentity | undefined> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const own = `${this.#path}.${this.#self.pid}`;
    await writeFile(own, JSON.stringify(this.#self), { mode: 0o600 });
    try {
      for (let tries = 0; tries < MAX_TRIES; tries += 1) {
        this.#isHeld ||= await linkIfFree(own, this.#path);
        if (this.#isHeld) return undefined;
        const holder = await this.#holder();
        if (holder !== undefined && (await isAlive(holder))) return holder;
        await this.#discard(holder);
      }
      throw new Error(`cannot take ${this.#path}: another process creates it again each time`);
    } finally {
      await rm(own, { force: true });
    }
  }

  async release(): Promise<void> {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    await rm(this.#path, { force: true }).catch(() => {});
  }

  async #holder(path = this.#path): Promise<ProcessIdentity | undefined> {
    return holderSchema.safeParse(jsonOf(await readFile(path, 'utf8').catch(() => ''))).data;
  }

  /** Another wrapper may have replaced the dead lock with its own after we read it; then puts that one back. */
  async #discard(dead: ProcessIdentity | undefined): Promise<void> {
    const aside = `${this.#path}.${this.#self.pid}.dead`;
    const isMoved = await rename(this.#path, aside).then(
      () => true,
      () => false,
    );
    if (!isMoved) return;
    const found = await this.#holder(aside);
    const isOther = found?.pid !== dead?.pid || found?.started !== dead?.started;
    if (isOther) await linkIfFree(aside, this.#path).catch(() => false);
    await rm(aside, { force: true });
  }
}
