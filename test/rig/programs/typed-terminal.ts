import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';

/** Keys to type once the terminal's output since the last answer matches the prompt. */
export type Answers = readonly (readonly [prompt: RegExp, keys: string])[];

export interface TypedTerminal {
  /** The terminal's output so far, as text. */
  shown(): string;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  /** Closes the terminal, which hangs up the programs in it. */
  close(): void;
}

/** Runs a shell script in a terminal of 100 columns and 40 rows, and answers its prompts. */
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
  let answeredLength = 0;
  child.stdin.on('error', () => {});
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      const latest = stripVTControlCharacters(shown.slice(answeredLength));
      const keys = answers.find(([prompt]) => prompt.test(latest))?.[1];
      if (keys === undefined) return;
      answeredLength = shown.length;
      child.stdin.write(keys);
    });
  }
  return {
    shown: () => stripVTControlCharacters(shown),
    ended: once(child, 'close').then(() => child.exitCode),
    close: () => void child.kill('SIGTERM'),
  };
}
