import { join } from 'node:path';

import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { singleLine } from '../base/plain-text.ts';
import { RotatingFile } from '../base/rotating-file.ts';

/** One call, as it is recorded: who did what to which instance, and never what was said. */
export interface RecordEntry {
  /** As the client introduced itself. */
  readonly client?: { readonly name: string; readonly version: string } | undefined;
  readonly tool: string;
  /** As resolved, else as asked for. */
  readonly instances: readonly string[];
  readonly session?: string | undefined;
  /** `ok`, `failed`, `cancelled`, or what became of a turn. */
  readonly outcome: string;
}

/** Where the record of this user's servers is, with the one before it behind. */
export function recordPath(stateDir: string): string {
  return join(stateDir, 'record.jsonl');
}

/** Lines that wait for a slow disk; more are dropped, and the log says so. */
const MAX_WAITING = 1_000;
const MAX_NAME_CHARS = 100;
const MAX_INSTANCES = 50;

/** Writes JSON lines in the background: `add` neither waits nor throws, and the log says once if they cannot be written. */
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

  /** Resolves when everything added so far is written, or cannot be. */
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
        this.#tell(error);
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

  #tell(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const reason = error instanceof Error ? error.message : String(error);
    this.#logger.log('warn', 'the record of calls cannot be written; they go on without it', {
      path: this.#file.path,
      reason,
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
