import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';

/** What a person types once the terminal's latest output matches. */
export type Answers = readonly (readonly [prompt: RegExp, keys: string])[];

export interface TypedTerminal {
  /** The terminal's output so far, as text. */
  shown(): string;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  /** Closes the terminal, which hangs up what runs in it. */
  close(): void;
}

/** Runs a shell script in a terminal of 100 by 40 and answers its prompts. */
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
