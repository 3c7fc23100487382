import { spawnSync } from 'node:child_process';

/**
 * What a full-screen program leaves switched on when it is killed: bracketed paste, focus and mouse reports, keyboard
 * protocol, hidden cursor, the alternate screen, colours.
 */
const RESET = [
  '\u001B[?2004l',
  '\u001B[?1004l',
  '\u001B[?1000l\u001B[?1002l\u001B[?1003l\u001B[?1006l',
  '\u001B[<u',
  '\u001B[?25h',
  '\u001B[?1049l',
  '\u001B[0m',
].join('');

/** The terminal as it was found; opencode leaves it so by itself unless it is killed. */
export interface Terminal {
  /** Puts line discipline and screen back as they were. */
  restore(): void;
}

/** Remembers how the terminal is set. Without one there is nothing to do. */
export function rememberTerminal({ stdin, stdout }: Pick<NodeJS.Process, 'stdin' | 'stdout'>): Terminal {
  const modes = stdin.isTTY ? stty(['-g'])?.trim() : undefined;
  return {
    restore() {
      if (stdout.isTTY) stdout.write(RESET);
      if (modes) stty([modes]);
    },
  };
}

/** Undefined where there is no `stty`. */
function stty(args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('stty', args, { stdio: ['inherit', 'pipe', 'ignore'], encoding: 'utf8' });
  return status === 0 ? stdout : undefined;
}
