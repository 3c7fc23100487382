import { singleLine } from './plain-text.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** One line per call. Never log prompts, answers, passwords or header values: a field is a name, a number, a path or a reason. */
export interface Logger {
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, string | number | boolean | undefined>>): void;
}

const RANK: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Writes `level message key=value …` lines at or above `threshold`. */
export function lineLogger(threshold: LogLevel, write: (line: string) => void): Logger {
  return {
    log(level, message, fields = {}) {
      if (RANK[level] < RANK[threshold]) return;
      const pairs = Object.entries(fields)
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${JSON.stringify(value)}`)
        .join('');
      // File names and remote text must not break the line or control a terminal.
      write(`${singleLine(`${level} ${message}${pairs}`, Infinity)}\n`);
    },
  };
}

export const silentLogger: Logger = { log() {} };

const MAX_MISFIT_CHARS = 4_000;
const MAX_MISFITS = 100;
/** Removed before comparing, so that the same misfit in another session is reported once. */
const IDS = /\b(?:ses|msg|per|que|frm)_[0-9A-Za-z_-]+|\.\d+\b|https?:\/\/[^/\s]+/g;

const reported = new Set<string>();

/** Logs each kind of unexpected opencode answer once, with its route and field, for a bug report. */
export function reportMisfit(answer: string, logger: Logger): void {
  const text = singleLine(answer, MAX_MISFIT_CHARS);
  const kind = text.replace(IDS, '');
  if (reported.has(kind) || reported.size >= MAX_MISFITS) return;
  reported.add(kind);
  logger.log('warn', 'unexpected answer of an opencode; please report it', { answer: text });
}
