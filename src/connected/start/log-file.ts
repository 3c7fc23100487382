import { join } from 'node:path';

import { lineLogger, type Logger } from '../../base/log.ts';
import { RotatingFile } from '../../base/files/rotating-file.ts';

export function logPath(stateDir: string): string {
  return join(stateDir, 'logs', 'opencode-connected.log');
}

/** Appends lines to the file at `path`. Ignores errors. */
export function fileLogger(path: string, now: () => number = Date.now): Logger {
  const file = new RotatingFile(path);
  const write = (line: string): void => {
    try {
      file.appendSync(`${new Date(now()).toISOString()} ${process.pid} ${line}`);
    } catch {
      // There is no place to report it: the terminal is opencode's.
    }
  };
  return lineLogger('info', write);
}
