import { join } from 'node:path';

import { messageOf } from '../base/errors.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { singleLine } from '../base/plain-text.ts';
import { RotatingFile } from '../base/files/rotating-file.ts';

/** One recorded call: which client did what to which instance, never the text of a message. */
export interface RecordEntry {
  readonly client?: { readonly name: string; readonly version: string } | undefined;
  readonly tool: string;
  /** Resolved names, else the names in the call. */
  readonly instances: readonly string[];
  readonly session?: string | undefined;
  /** `ok`, `failed`, `cancelled`, or the outcome of a turn. */
  readonly outcome: string;
}

export function recordPath(stateDir: string): string {
  return join(stateDir, 'record.jsonl');
}

/** Lines kept for a slow disk; further ones are dropped, and counted in the record. */
const MAX_WAITING = 1_000;
const MAX_NAME_CHARS = 100;
const MAX_INSTANCES = 50;

/** Writes JSON lines in the background: `add` neither waits nor throws, and a failure to write is logged once. */
export class CallRecord {
  readonly #file: RotatingFile;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #waiting: string[] = [];
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #hasFailed = false;

  constructor(stateDir: string, clock: Clock, logger: Logger, file = new RotatingFile(recordPath(stateDir))) {
    this.#file = file;
    this.#clock = clock;
    this.#logger = logger;
  }

  add(entry: RecordEntry): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#dropped += 1;
      return;
    }
    this.#waiting.push(line(entry, this.#clock.now()));
    this.#writing ??= this.#write();
  }

  /** Resolves when everything added so far is written, or has failed to be. */
  async close(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      try {
        await this.#file.append(lines.join('') + this.#droppedLine());
      } catch (error) {
        this.#warnOnce(error);
      }
    }
    this.#writing = undefined;
  }

  #droppedLine(): string {
    if (this.#dropped === 0) return '';
    const dropped = this.#dropped;
    this.#dropped = 0;
    return `${JSON.stringify({ time: new Date(this.#clock.now()).toISOString(), dropped })}\n`;
  }

  #warnOnce(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const { path } = this.#file;
    this.#logger.log('warn', 'cannot write the record of calls; they go on without it', {
      path,
      reason: messageOf(error),
    });
  }
}

function line({ client, tool, instances, session, outcome }: RecordEntry, nowMs: number): string {
  const names = instances.slice(0, MAX_INSTANCES).map(short);
  const fields = {
    time: new Date(nowMs).toISOString(),
    ...(client && { client: short(client.name), version: short(client.version) }),
    tool: short(tool),
    ...(names.length === 1 ? { instance: names[0] } : { instances: names }),
    ...(session !== undefined && { session: short(session) }),
    outcome: short(outcome),
  };
  return `${JSON.stringify(fields)}\n`;
}

function short(text: string): string {
  return singleLine(text, MAX_NAME_CHARS);
}
