import { join } from 'node:path';

import { lineLogger, type Logger } from '../../base/log.ts';
import { RotatingFile } from '../../base/rotating-file.ts';

/** Where the wrappers of this user log. */
export function logPath(stateDir: string): string {
  return join(stateDir, 'logs', 'opencode-connected.log');
}

/** Appends lines to the file at `path`. A log that cannot be written is no reason not to work. */
export function fileLogger(path: string, now: () => number = Date.now): Logger {
  const file = new RotatingFile(path);
  const write = (line: string): void => {
    try {
      file.appendSync(`${new Date(now()).toISOString()} ${process.pid} ${line}`);
    } catch {
      // Nowhere to tell it: the terminal is opencode's.
    }
  };
  return lineLogger('info', write);
}
