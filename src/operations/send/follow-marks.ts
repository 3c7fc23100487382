import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { errorCode } from '../../base/errors.ts';
import type { Clock } from '../../base/clock.ts';
import type { Followed } from '../../model/followed.ts';
import type { TurnOutcome } from '../../turns/outcome.ts';
import { removeOldFiles } from '../remove-old-files.ts';

/** Marks of a killed process count for this long: no call follows a turn for longer. */
const BELIEVED_MS = 86_400_000;

/**
 * Files from which the notifier learns which sessions calls on this machine follow: a caller that sees how a turn ends needs no
 * notification. An empty file stands for a call that follows now; another one holds what the last call saw.
 */
export class FollowMarks {
  readonly #folder: string;
  readonly #clock: Clock;
  #count = 0;
  #tidied = false;

  /** @param folder made when it is first needed, 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** Marks the session as followed until the returned function is called with the outcome. Neither rejects. */
  begin(sessionId: string): (outcome: TurnOutcome['kind'] | undefined) => Promise<void> {
    if (!/^[\w-]{1,100}$/.test(sessionId)) return async () => {};
    this.#count += 1;
    const path = join(this.#folder, `${sessionId}.${process.pid}.${this.#count}`);
    const written = this.#write(path, '');
    return async (outcome) => {
      await written;
      const seen = outcome === 'waiting' ? 'waiting' : isEnd(outcome) ? 'end' : undefined;
      if (seen !== undefined) await this.#write(join(this.#folder, sessionId), seen);
      await rm(path, { force: true }).catch(() => {});
    };
  }

  /** By session id. Rejects if the folder cannot be read. */
  async read(): Promise<ReadonlyMap<string, Followed>> {
    const names = await readdir(this.#folder).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    });
    const found = new Map<string, Followed>();
    for (const name of names) {
      const [sessionId = '', pid] = name.split('.');
      const path = join(this.#folder, name);
      const atMs = (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;
      if (this.#clock.now() - atMs > BELIEVED_MS) continue;
      if (pid === undefined) {
        const sawEnd = (await readFile(path, 'utf8').catch(() => '')) === 'end';
        if (!found.has(sessionId)) found.set(sessionId, { untilMs: atMs, sawEnd });
      } else if (isAlive(Number(pid))) found.set(sessionId, { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
    }
    return found;
  }

  async #write(path: string, text: string): Promise<void> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      if (!this.#tidied) {
        this.#tidied = true;
        await removeOldFiles(this.#folder, BELIEVED_MS, this.#clock.now());
      }
      await writeFile(path, text, { mode: 0o600 });
    } catch {
      // The cost is a notification of something already known.
    }
  }
}

function isEnd(outcome: TurnOutcome['kind'] | undefined): boolean {
  return outcome === 'completed' || outcome === 'failed' || outcome === 'aborted' || outcome === 'interrupted';
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}
