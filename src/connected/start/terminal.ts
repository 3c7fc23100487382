import { spawnSync } from 'node:child_process';

/**
 * Switches off what a killed full-screen program leaves on: bracketed paste, focus and mouse reports, the keyboard
 * protocol, the hidden cursor, the alternate screen, colours.
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

export interface Terminal {
  /** Resets line discipline and screen, which a killed opencode does not do. */
  restore(): void;
}

/** Remembers the settings of the terminal, if there is one. */
export function rememberTerminal({ stdin, stdout }: Pick<NodeJS.Process, 'stdin' | 'stdout'>): Terminal {
  const modes = stdin.isTTY ? stty(['-g'])?.trim() : undefined;
  return {
    restore() {
      if (stdout.isTTY) stdout.write(RESET);
      if (modes) stty([modes]);
    },
  };
}

/** Undefined if there is no `stty`. */
function stty(args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('stty', args, { stdio: ['inherit', 'pipe', 'ignore'], encoding: 'utf8' });
  return status === 0 ? stdout : undefined;
}
