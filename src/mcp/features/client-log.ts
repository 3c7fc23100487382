import type { LoggingLevel } from '@modelcontextprotocol/sdk/types.js';

import type { Logger, LogLevel } from '../../base/log.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { SendNotification } from '../core.ts';

const LEVELS: readonly LoggingLevel[] = [
  'debug',
  'info',
  'notice',
  'warning',
  'error',
  'critical',
  'alert',
  'emergency',
];
const MCP_LEVEL: Record<LogLevel, LoggingLevel> = { debug: 'debug', info: 'info', warn: 'warning', error: 'error' };

const MAX_CHARS = 1_000;

/** Lines kept for a client that does not read; later ones go to stderr only. */
const MAX_UNREAD = 100;

export function isLogLevel(value: unknown): value is LoggingLevel {
  return (LEVELS as readonly unknown[]).includes(value);
}

/** Sends the log to the client. Log lines hold no secrets and no message text (see `Logger`). */
export class ClientLog {
  readonly #sendNotification: SendNotification;
  /** By what asked for it: a session, or one request. The lowest counts. */
  readonly #levels = new Map<object, LoggingLevel>();
  #unread = 0;

  constructor(sendNotification: SendNotification) {
    this.#sendNotification = sendNotification;
  }

  /** Undefined: it wants no log any more. */
  setLevel(asker: object, level: LoggingLevel | undefined): void {
    if (level === undefined) this.#levels.delete(asker);
    else this.#levels.set(asker, level);
  }

  /** A logger that writes to `other` and to the client. */
  beside(other: Logger): Logger {
    return {
      log: (level, message, fields = {}) => {
        other.log(level, message, fields);
        const rank = LEVELS.indexOf(MCP_LEVEL[level]);
        const isWanted = [...this.#levels.values()].some((lowest) => LEVELS.indexOf(lowest) <= rank);
        if (!isWanted || this.#unread >= MAX_UNREAD) return;
        this.#unread += 1;
        void this.#sendNotification('notifications/message', messageOf(level, message, fields)).then(
          () => (this.#unread -= 1),
        );
      },
    };
  }
}

function messageOf(
  level: LogLevel,
  message: string,
  fields: NonNullable<Parameters<Logger['log']>[2]>,
): Readonly<Record<string, unknown>> {
  const shown = Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, typeof value === 'string' ? singleLine(value, MAX_CHARS) : value] as const],
  );
  const data = { ...Object.fromEntries(shown), message: singleLine(message, MAX_CHARS) };
  return { level: MCP_LEVEL[level], logger: 'opencode-mcp', data };
}
