import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import { errorCode, jsonOf, messageOf } from '../base/errors.ts';
import { replaceOwnFile } from '../base/files/own-file.ts';
import type { Logger } from '../base/log.ts';
import { NOTIFY_EVENTS } from '../config/notify.ts';
import type { Memory } from './facts.ts';
import type { Notice } from './notice.ts';
import type { KeptOutbox } from './outbox.ts';

/** The memory of facts, and each channel's outbox by channel name. One file, so that both always match. */
export interface Kept {
  readonly memory: Memory;
  readonly outboxes: ReadonlyMap<string, KeptOutbox>;
}

const noticeSchema: z.ZodType<Notice> = z.object({
  id: z.string(),
  event: z.enum([...NOTIFY_EVENTS, 'settled', 'summary', 'test']),
  atMs: z.number(),
  host: z.string(),
  instance: z.string().exactOptional(),
  directory: z.string().exactOptional(),
  session: z.object({ id: z.string(), title: z.string() }).exactOptional(),
  request: z.object({ id: z.string(), kind: z.enum(['permission', 'question']), text: z.string() }).exactOptional(),
  reason: z.string().exactOptional(),
  link: z.string().exactOptional(),
  counts: z.partialRecord(z.enum(NOTIFY_EVENTS), z.number()).exactOptional(),
});

const keptSchema = z.object({
  version: z.literal(1),
  servers: z.array(
    z.object({
      id: z.string(),
      lookedMs: z.number(),
      runs: z.array(z.tuple([z.string(), z.object({ turnMs: z.number(), isStalled: z.boolean() })])),
      waits: z.array(z.object({ notice: noticeSchema, isRepeated: z.boolean() })),
    }),
  ),
  outboxes: z.array(
    z.object({
      channel: z.string(),
      pending: z.array(z.object({ notice: noticeSchema, fromMs: z.number(), attempts: z.number() })),
      shown: z.array(z.object({ id: z.string(), replaces: z.string().exactOptional() })),
    }),
  ),
});

/** A file of this user alone (0600), replaced as a whole. Reads and writes never reject. */
export class NoticeStore {
  readonly #path: string;
  readonly #logger: Logger;
  #hasFailed = false;
  #written = '';

  /** @param folder created on the first write, 0700 */
  constructor(folder: string, logger: Logger) {
    this.#path = join(folder, 'pending.json');
    this.#logger = logger;
  }

  /** Empty without a usable file. */
  async read(): Promise<Kept> {
    let text: string;
    try {
      text = await readFile(this.#path, 'utf8');
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') this.#warn('cannot read pending notifications', messageOf(error));
      return { memory: new Map(), outboxes: new Map() };
    }
    const kept = keptSchema.safeParse(jsonOf(text));
    if (!kept.success) {
      this.#warn('cannot read pending notifications; starting without them', 'this version does not know its format');
      return { memory: new Map(), outboxes: new Map() };
    }
    return {
      memory: new Map(
        kept.data.servers.map(({ id, lookedMs, runs, waits }) => [
          id,
          { lookedMs, runs: new Map(runs), waits: new Map(waits.map((wait) => [wait.notice.id, wait])) },
        ]),
      ),
      outboxes: new Map(
        kept.data.outboxes.map(({ channel, pending, shown }) => [
          channel,
          { pending, shown: shown.map(({ id, replaces }) => [id, replaces] as const) },
        ]),
      ),
    };
  }

  async write(kept: Kept): Promise<void> {
    const text = textOf(kept);
    // The time of a check that found nothing new is not worth a write.
    const substance = text.replace(/"lookedMs":\d+/g, '');
    if (substance === this.#written) return;
    try {
      await replaceOwnFile(this.#path, text);
      this.#hasFailed = false;
      this.#written = substance;
    } catch (error) {
      if (this.#hasFailed) return;
      this.#hasFailed = true;
      this.#warn('cannot write pending notifications; a restart would lose them', messageOf(error));
    }
  }

  #warn(message: string, reason: string): void {
    this.#logger.log('warn', message, { path: this.#path, reason });
  }
}

function textOf({ memory, outboxes }: Kept): string {
  const kept: z.input<typeof keptSchema> = {
    version: 1,
    servers: [...memory].map(([id, { lookedMs, runs, waits }]) => ({
      id,
      lookedMs,
      runs: [...runs],
      waits: [...waits.values()],
    })),
    outboxes: [...outboxes].map(([channel, { pending, shown }]) => ({
      channel,
      pending: [...pending],
      shown: shown.map(([id, replaces]) => ({ id, ...(replaces !== undefined && { replaces }) })),
    })),
  };
  return `${JSON.stringify(kept)}\n`;
}
