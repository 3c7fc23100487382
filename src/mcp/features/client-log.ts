import type { LoggingLevel } from '@modelcontextprotocol/sdk/types.js';

import type { Logger, LogLevel } from '../../base/log.ts';
import { singleLine } from '../../base/plain-text.ts';

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

/** Lines for a client that does not read; further ones are on stderr only. */
const MAX_UNREAD = 100;

export interface LogMessage {
  readonly level: LoggingLevel;
  readonly logger: 'opencode-mcp';
  readonly data: Readonly<Record<string, string | number | boolean>>;
}

/** Who gets the log. */
export interface LogReader {
  /** From which level on; undefined: nothing now. */
  readonly level: () => LoggingLevel | undefined;
  /** Resolves once the client has room for the next. */
  readonly send: (message: LogMessage) => Promise<void>;
}

export function isLogLevel(value: unknown): value is LoggingLevel {
  return (LEVELS as readonly unknown[]).includes(value);
}

/** The one that lets the most through; undefined where there is none. */
export function lowestLevel(levels: Iterable<LoggingLevel>): LoggingLevel | undefined {
  const asked = new Set(levels);
  return LEVELS.find((level) => asked.has(level));
}

/**
 * The log as clients get it, from the level on that each asked for. A log line holds no secret and nothing that was said (see
 * `Logger`), so neither does a message.
 */
export class ClientLog {
  readonly #readers = new Map<LogReader, { unread: number }>();

  /** The lines of before are on stderr only. Returns what ends it. */
  connect(reader: LogReader): () => void {
    this.#readers.set(reader, { unread: 0 });
    return () => void this.#readers.delete(reader);
  }

  /** A logger that writes to `other`, and to the clients. */
  beside(other: Logger): Logger {
    return {
      log: (level, message, fields = {}) => {
        other.log(level, message, fields);
        for (const [reader, state] of this.#readers) {
          const from = reader.level();
          if (from === undefined || LEVELS.indexOf(MCP_LEVEL[level]) < LEVELS.indexOf(from)) continue;
          if (state.unread >= MAX_UNREAD) continue;
          state.unread += 1;
          void reader.send(messageOf(level, message, fields)).then(() => (state.unread -= 1));
        }
      },
    };
  }
}

function messageOf(level: LogLevel, message: string, fields: Parameters<Logger['log']>[2] = {}): LogMessage {
  const told = Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, typeof value === 'string' ? singleLine(value, MAX_CHARS) : value] as const],
  );
  const data = { ...Object.fromEntries(told), message: singleLine(message, MAX_CHARS) };
  return { level: MCP_LEVEL[level], logger: 'opencode-mcp', data };
}
