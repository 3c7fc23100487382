import { singleLine } from './plain-text.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/**
 * One line per call. Prompts, answers, passwords and header values are never logged:
 * a field is a name, a number, a path or a reason.
 */
export interface Logger {
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, string | number | boolean | undefined>>): void;
}

const RANK: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Writes `level message key=value …` lines at or above `threshold` to `write` (stderr for the server: its stdout is protocol only). */
export function lineLogger(threshold: LogLevel, write: (line: string) => void): Logger {
  return {
    log(level, message, fields = {}) {
      if (RANK[level] < RANK[threshold]) return;
      const pairs = Object.entries(fields)
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${JSON.stringify(value)}`)
        .join('');
      // Whatever a file name or another machine says, it is one line that steers no terminal.
      write(`${singleLine(`${level} ${message}${pairs}`, Infinity)}\n`);
    },
  };
}

export const silentLogger: Logger = { log() {} };
