import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { errorCode, jsonOf } from '../../base/errors.ts';
import { isAlive, type ProcessIdentity } from '../process-table.ts';

const holderSchema = z.object({ pid: z.int(), started: z.string().optional() });

/** Of a process that was killed one stays, and holds nothing. */
export function lockFolder(stateDir: string): string {
  return join(stateDir, 'service');
}

/** Each try that fails found a holder that had just ended. */
const MAX_TRIES = 10;

/**
 * Which of a user's wrappers holds the registration and the tunnel of the one service: there are as many wrappers as terminals, and
 * one entry. A file made with link(2), which fails where there is one; that of a process that ended is taken over.
 */
export class ServiceLock {
  readonly #path: string;
  readonly #self: ProcessIdentity;
  #isHeld = false;

  /** @param key which of the user's services: there is one for each channel */
  constructor(stateDir: string, key: string, self: ProcessIdentity) {
    this.#path = join(lockFolder(stateDir), `${key}.lock`);
    this.#self = self;
  }

  /** Undefined once it is ours, else who holds it. Rejects where the folder cannot be written. */
  async take(): Promise<ProcessIdentity | undefined> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const own = `${this.#path}.${this.#self.pid}`;
    await writeFile(own, JSON.stringify(this.#self), { mode: 0o600 });
    try {
      for (let tries = 0; tries < MAX_TRIES; tries += 1) {
        const made = await link(own, this.#path).then(
          () => true,
          (error: unknown) => {
            if (errorCode(error) === 'EEXIST') return false;
            throw error;
          },
        );
        this.#isHeld ||= made;
        if (made) return undefined;
        const holder = await this.#holder();
        if (holder !== undefined && (await isAlive(holder))) return holder;
        await this.#discard(holder);
      }
      throw new Error(`cannot take ${this.#path}: it comes back again and again`);
    } finally {
      await rm(own, { force: true });
    }
  }

  /** Gives it to the next. Never rejects. */
  async release(): Promise<void> {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    await rm(this.#path, { force: true }).catch(() => {});
  }

  async #holder(path = this.#path): Promise<ProcessIdentity | undefined> {
    const parsed = holderSchema.safeParse(jsonOf(await readFile(path, 'utf8').catch(() => '')));
    if (!parsed.success) return undefined;
    const { pid, started } = parsed.data;
    return { pid, ...(started !== undefined && { started }) };
  }

  /** Another may have discarded it and made its own between our look and this: that one is put back. */
  async #discard(dead: ProcessIdentity | undefined): Promise<void> {
    const aside = `${this.#path}.${this.#self.pid}.dead`;
    const moved = await rename(this.#path, aside).then(
      () => true,
      () => false,
    );
    if (!moved) return;
    const found = await this.#holder(aside);
    if (found?.pid !== dead?.pid || found?.started !== dead?.started) await link(aside, this.#path).catch(() => {});
    await rm(aside, { force: true });
  }
}
