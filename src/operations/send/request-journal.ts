import { createHash, randomUUID } from 'node:crypto';
import { link, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import type { Clock } from '../../base/clock.ts';
import type { Prompt } from '../../opencode/api.ts';
import { OperationError, quoteName } from '../answer.ts';

/** A message that was sent, or was about to be, for one request id. Its text is not kept. */
export interface JournalEntry {
  readonly sessionId: string;
  readonly messageId: string;
  readonly partId: string;
  /** SHA-256 of the text. */
  readonly digest: string;
}

const entrySchema = z.object({
  sessionId: z.string(),
  messageId: z.string(),
  partId: z.string(),
  digest: z.string(),
});

/** A client that repeats a call does so within minutes; people who come back do so within days. */
const KEPT_MS = 14 * 86_400_000;

/** Which message each request id stands for, on disk, so that a repeated call gives the same turn across a restart of this server too. */
export class RequestJournal {
  readonly #folder: string;
  readonly #clock: Clock;
  #tidied = false;

  /** @param folder made when it is first needed, 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** @throws {OperationError} it cannot be read, or stands for another text */
  async find(instance: string, requestId: string, text: string): Promise<JournalEntry | undefined> {
    const path = this.#path(instance, requestId);
    let written: string;
    try {
      written = await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw unusable(path, error);
    }
    const entry = entrySchema.safeParse(jsonOf(written));
    if (!entry.success) throw unusable(path, new Error('it is damaged; remove it once you know what became of it'));
    if (entry.data.digest !== digestOf(text)) {
      throw new OperationError(
        `request_id ${JSON.stringify(requestId)} was used for another message to ${quoteName(instance)}; nothing was sent. Give each message a request_id of its own.`,
      );
    }
    return entry.data;
  }

  /**
   * Keeps what is about to be sent. False where another process has kept one in the meantime.
   * @throws {OperationError} it cannot be kept
   */
  async keep(instance: string, requestId: string, { sessionId, messageId, partId, text }: Prompt): Promise<boolean> {
    const path = this.#path(instance, requestId);
    const entry: JournalEntry = { sessionId, messageId, partId, digest: digestOf(text) };
    const temporary = join(this.#folder, `.${randomUUID()}.tmp`);
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await this.#tidy();
      await writeFile(temporary, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
      return await linked(temporary, path);
    } catch (error) {
      throw unusable(path, error);
    } finally {
      await rm(temporary, { force: true }).catch(() => {});
    }
  }

  /** The message it stands for will never be sent. */
  async forget(instance: string, requestId: string): Promise<void> {
    await rm(this.#path(instance, requestId), { force: true }).catch(() => {});
  }

  #path(instance: string, requestId: string): string {
    return join(this.#folder, `${digestOf(`${instance}\0${requestId}`)}.json`);
  }

  /** Once for each process. */
  async #tidy(): Promise<void> {
    if (this.#tidied) return;
    this.#tidied = true;
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name);
      const changedMs = (await stat(path).catch(() => undefined))?.mtimeMs ?? Number.POSITIVE_INFINITY;
      if (this.#clock.now() - changedMs > KEPT_MS) await rm(path, { force: true });
    }
  }
}

/** Unlike a rename it never takes the place of another; false where there is one. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function unusable(path: string, error: unknown): OperationError {
  const reason = error instanceof Error ? error.message : String(error);
  return new OperationError(`request_id cannot be kept in ${path}: ${reason}. Nothing was sent.`);
}
