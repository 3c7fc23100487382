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

/**
 * The log as the client gets it, from the level on that it asked for: until then, what may need somebody's attention. A log line
 * holds no secret and nothing that was said (see `Logger`), so neither does a message.
 */
export class ClientLog {
  #threshold: LoggingLevel = 'warning';
  #send: ((message: LogMessage) => Promise<void>) | undefined;
  #unread = 0;

  setLevel(level: LoggingLevel): void {
    this.#threshold = level;
  }

  /** `send` resolves once the client has room for the next. Undefined while nobody is connected: the lines of then are on stderr only. */
  connect(send: ((message: LogMessage) => Promise<void>) | undefined): void {
    this.#send = send;
  }

  /** A logger that writes to `other`, and to the client. */
  beside(other: Logger): Logger {
    return {
      log: (level, message, fields = {}) => {
        other.log(level, message, fields);
        const mcpLevel = MCP_LEVEL[level];
        if (LEVELS.indexOf(mcpLevel) < LEVELS.indexOf(this.#threshold)) return;
        const told = Object.entries(fields).flatMap(([key, value]) =>
          value === undefined ? [] : [[key, typeof value === 'string' ? singleLine(value, MAX_CHARS) : value] as const],
        );
        const data = { ...Object.fromEntries(told), message: singleLine(message, MAX_CHARS) };
        if (this.#send === undefined || this.#unread >= MAX_UNREAD) return;
        this.#unread += 1;
        void this.#send({ level: mcpLevel, logger: 'opencode-mcp', data }).then(() => (this.#unread -= 1));
      },
    };
  }
}
