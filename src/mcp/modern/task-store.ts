import { randomUUID } from 'node:crypto';
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import type { Clock } from '../../base/clock.ts';
import { removeOldFiles } from '../../operations/remove-old-files.ts';
import { begunSchema } from '../../operations/send/resume.ts';

const keptTaskSchema = z.object({
  tool: z.string(),
  /** Without what is said. */
  args: z.record(z.string(), z.unknown()),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  ttlMs: z.number(),
  /** What it has sent or settled, and follows. */
  begun: z.array(begunSchema),
  /** How it ended. */
  end: z
    .object({
      status: z.enum(['completed', 'cancelled']),
      message: z.string(),
      result: z.looseObject({}).optional(),
    })
    .optional(),
});
export type KeptTask = z.infer<typeof keptTaskSchema>;

/** How long a task may take, and its result is kept: an agent may work through a night. */
export const TASK_TTL_MS = 86_400_000;

/** Task ids are UUIDs: nothing else is looked for as a file. */
const ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * The tasks of this user's servers until they expire: a client may fetch a result from the next process. How a task ended is in
 * a file of its own. Two processes may follow one task; the first to finish creates that file, and it is never replaced.
 */
export class TaskStore {
  readonly #folder: string;
  readonly #clock: Clock;
  #tidied = false;
  /** One write after the other. */
  #writing: Promise<void> = Promise.resolve();

  /** @param folder made when it is first needed, 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** Resolves with what is kept from now on: the end that another process came to first, where there is one. @throws it cannot be kept */
  async write(id: string, task: KeptTask): Promise<KeptTask> {
    const write = async (): Promise<KeptTask> => {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await this.#tidy();
      const temporary = join(this.#folder, `.${randomUUID()}.tmp`);
      try {
        await writeFile(temporary, JSON.stringify(task), { mode: 0o600 });
        if (task.end === undefined) {
          await rename(temporary, this.#path(id));
          return (await this.#read(this.#endPath(id))) ?? task;
        }
        await link(temporary, this.#endPath(id));
        return task;
      } catch (error) {
        const first =
          (error as NodeJS.ErrnoException).code === 'EEXIST' ? await this.#read(this.#endPath(id)) : undefined;
        if (first === undefined) throw error;
        return first;
      } finally {
        await rm(temporary, { force: true }).catch(() => {});
      }
    };
    const written = this.#writing.then(write);
    this.#writing = written.then(
      () => {},
      () => {},
    );
    return await written;
  }

  /** Undefined where there is none, or its time is over. */
  async read(id: string): Promise<KeptTask | undefined> {
    if (!ID.test(id)) return undefined;
    const task = (await this.#read(this.#endPath(id))) ?? (await this.#read(this.#path(id)));
    return task === undefined || this.#isOver(task) ? undefined : task;
  }

  async #read(path: string): Promise<KeptTask | undefined> {
    try {
      return keptTaskSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    } catch {
      return undefined;
    }
  }

  #isOver({ createdAtMs, ttlMs }: KeptTask): boolean {
    return this.#clock.now() - createdAtMs > ttlMs;
  }

  /** Once for each process. */
  async #tidy(): Promise<void> {
    if (this.#tidied) return;
    this.#tidied = true;
    await removeOldFiles(this.#folder, TASK_TTL_MS, this.#clock.now());
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.json`);
  }

  #endPath(id: string): string {
    return join(this.#folder, `${id}.end.json`);
  }
}
