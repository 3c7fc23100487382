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
      write(`${level} ${oneLine(message)}${pairs}\n`);
    },
  };
}

export const silentLogger: Logger = { log() {} };

function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- a log line must stay one line whatever a file name holds
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
}
