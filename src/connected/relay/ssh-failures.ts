import { quoted, singleLine } from '../../base/plain-text.ts';
import { MAX_SHOWN_CHARS } from '../shown.ts';

/** ssh gives the cause in its last line, seldom in the last three. */
const KEPT_LINES = 3;

/** Whether a non-interactive ssh failed because ssh itself, gcloud or a ProxyCommand needed an answer from the user. */
export function wantsPerson(reason: string): boolean {
  return /Permission denied|Host key verification failed|cannot prompt|\/dev\/tty/.test(reason);
}

export function wasInterrupted(reason: string | undefined): boolean {
  return /was ended by SIG(?:INT|QUIT)\)?$/.test(reason ?? '');
}

/** Adds a line that is not blank, and keeps the last three. */
export function keepLast(lines: string[], line: string): void {
  if (line.trim() !== '') lines.push(line);
  if (lines.length > KEPT_LINES) lines.shift();
}

/** The reason if the login worked but the relay ran something else, which printed the lines `printed`. */
export function anotherCommand(printed: readonly string[], reason: string): string {
  const words = quoted(printed.join('; '), MAX_SHOWN_CHARS);
  const what = printed.length === 0 ? 'did not run' : `printed ${words} instead of running`;
  return `the relay ${what} our program: ${reason}; see command= in its authorized_keys, ForceCommand in its sshd_config and its login shell`;
}

/** The reason if a program could not be started, safe to show. */
export function cannotRun(program: string, error: unknown): string {
  const shown = JSON.stringify(singleLine(program, 100));
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'it cannot be started';
  const what = code === 'ENOENT' ? 'there is no such program' : code === 'EACCES' ? 'it is not executable' : code;
  return `cannot run ${shown}: ${what}; ${program === '/bin/sh' ? 'a POSIX shell is needed there' : 'install it, or correct RELAY_SSH_CMD'}`;
}
