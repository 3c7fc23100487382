import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';

/** What a person types when the terminal's last words match. */
export type Answers = readonly (readonly [prompt: RegExp, keys: string])[];

export interface TypedTerminal {
  /** What the terminal has shown so far, as text. */
  shown(): string;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  /** As when a person closes the window: what runs in it is hung up. */
  close(): void;
}

/** Runs a shell script in a terminal of 100 by 40, in front of which a person answers what is asked. */
export function openTypedTerminal(
  script: string,
  env: Readonly<Record<string, string>>,
  directory: string,
  answers: Answers = [],
): TypedTerminal {
  const child = spawn('script', ['-qec', `stty cols 100 rows 40\n${script}`, '/dev/null'], {
    cwd: directory,
    env: { ...env, SHELL: '/bin/bash' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let shown = '';
  let answered = 0;
  child.stdin.on('error', () => {});
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      const rest = stripVTControlCharacters(shown.slice(answered));
      const keys = answers.find(([prompt]) => prompt.test(rest))?.[1];
      if (keys === undefined) return;
      answered = shown.length;
      child.stdin.write(keys);
    });
  }
  return {
    shown: () => stripVTControlCharacters(shown),
    ended: once(child, 'close').then(() => child.exitCode),
    close: () => void child.kill('SIGTERM'),
  };
}
