import { appendFileSync, chmodSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { lineLogger, type Logger } from '../../log.ts';

/** Some ten thousand lines. */
const MAX_BYTES = 1024 * 1024;

/** Where the wrappers of this user log: one file, and the one before it with `.1` behind. */
export function logPath(stateDir: string): string {
  return join(stateDir, 'logs', 'opencode-connected.log');
}

/**
 * Appends lines to the file at `path`, for this user's eyes only. A log that cannot be written is no reason not to work.
 * Synchronous: a line or two a minute, and none is lost when the process ends.
 */
export function fileLogger(path: string, now: () => number = Date.now): Logger {
  const write = (line: string): void => {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      rotate(path);
      appendFileSync(path, `${new Date(now()).toISOString()} ${process.pid} ${line}`, { mode: 0o600 });
    } catch {
      // Nowhere to tell it: the terminal is opencode's.
    }
  };
  return lineLogger('info', write);
}

function rotate(path: string): void {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size < MAX_BYTES) return;
  renameSync(path, `${path}.1`);
  chmodSync(`${path}.1`, 0o600);
}
