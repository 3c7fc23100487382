import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import type { Clock } from '../../base/clock.ts';
import { createOwnFile, replaceOwnFile } from '../../base/files/own-file.ts';
import { removeOldFiles } from '../../operations/remove-old-files.ts';
import { begunSchema } from '../../operations/send/resume.ts';

const keptTaskSchema = z.object({
  tool: z.string(),
  /** Without the message to the agent. */
  args: z.record(z.string(), z.unknown()),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  ttlMs: z.number(),
  /** The messages it has sent and requests it has answered, whose turns it follows. */
  begun: z.array(begunSchema),
  end: z
    .object({
      status: z.enum(['completed', 'cancelled']),
      message: z.string(),
      result: z.looseObject({}).optional(),
    })
    .optional(),
});
export type KeptTask = z.infer<typeof keptTaskSchema>;

/** How long a task may run and its result is kept: an agent may work overnight. */
export const TASK_TTL_MS = 86_400_000;

/** Task ids are UUIDs; no other id becomes a path. */
const ID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Stores the tasks of this user's servers until they expire, since a client may fetch a result from the next process. Two processes
 * may follow one task. The first to finish creates the file with the task's end, which is never replaced.
 */
export class TaskStore {
  readonly #folder: string;
  readonly #clock: Clock;
  #tidied = false;
  /** Writes are done one after another. */
  #writing: Promise<void> = Promise.resolve();

  /** @param folder created when it is first needed, with mode 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** Resolves to the stored task: as another process ended it, if one was first. @throws it cannot be written */
  async write(id: string, task: KeptTask): Promise<KeptTask> {
    const written = this.#writing.then(() => this.#write(id, task));
    this.#writing = written.then(
      () => {},
      () => {},
    );
    return await written;
  }

  async #write(id: string, task: KeptTask): Promise<KeptTask> {
    await this.#tidy();
    const endPath = this.#endPath(id);
    if (task.end === undefined) {
      await replaceOwnFile(this.#path(id), JSON.stringify(task));
      return (await this.#read(endPath)) ?? task;
    }
    if (await createOwnFile(endPath, JSON.stringify(task))) return task;
    const first = await this.#read(endPath);
    if (first === undefined) throw new Error(`${endPath} is damaged; remove it`);
    return first;
  }

  /** Undefined if there is none, or it has expired. */
  async read(id: string): Promise<KeptTask | undefined> {
    if (!ID.test(id)) return undefined;
    const task = (await this.#read(this.#endPath(id))) ?? (await this.#read(this.#path(id)));
    return task === undefined || this.#isExpired(task) ? undefined : task;
  }

  async #read(path: string): Promise<KeptTask | undefined> {
    try {
      return keptTaskSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    } catch {
      return undefined;
    }
  }

  #isExpired({ createdAtMs, ttlMs }: KeptTask): boolean {
    return this.#clock.now() - createdAtMs > ttlMs;
  }

  /** Removes expired tasks, once per process. */
  async #tidy(): Promise<void> {
    if (this.#tidied) return;
    this.#tidied = true;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeOldFiles(this.#folder, TASK_TTL_MS, this.#clock.now());
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.json`);
  }

  #endPath(id: string): string {
    return join(this.#folder, `${id}.end.json`);
  }
}
