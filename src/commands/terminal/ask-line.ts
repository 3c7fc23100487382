import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

/** Asks for a line; undefined for Ctrl-C, for Ctrl-D, and if `signal` aborts first. */
export type AskLine = (prompt: string, signal: AbortSignal) => Promise<string | undefined>;

/** Earlier keystrokes are in the terminal already: reading them takes no time. */
const TYPED_BEFORE_MS = 50;

/** Undefined without a terminal. Questions go to stderr: stdout is for the command's result. */
export function lineAsker({ stdin, stderr }: NodeJS.Process): AskLine | undefined {
  if (!stdin.isTTY || !stderr.isTTY) return undefined;
  return async (prompt, signal) => {
    // Earlier keystrokes do not answer this question.
    stdin.setRawMode(true);
    const drop = (): void => {};
    stdin.on('data', drop).resume();
    await pause(TYPED_BEFORE_MS);
    stdin.off('data', drop);
    const reading = createInterface({ input: stdin, output: stderr, terminal: true });
    const answered = new AbortController();
    try {
      return await new Promise<string | undefined>((resolve) => {
        const leave = (): void => resolve(undefined);
        reading.once('SIGINT', leave).once('close', leave);
        if (signal.aborted) leave();
        signal.addEventListener('abort', leave, { once: true, signal: answered.signal });
        reading.question(prompt, (line) => resolve(line));
      }).then((line) => {
        // However it ended, the next output starts on a new line.
        if (line === undefined) stderr.write('\n');
        return line;
      });
    } finally {
      answered.abort();
      reading.close();
    }
  };
}
