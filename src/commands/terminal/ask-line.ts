import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

/** What a person typed; undefined for Ctrl-C, for Ctrl-D, and where `signal` aborted first. */
export type AskLine = (prompt: string, signal: AbortSignal) => Promise<string | undefined>;

/** What was typed before is in the terminal already: reading it takes no time. */
const TYPED_BEFORE_MS = 50;

/** Undefined where there is nobody to ask. Questions go to stderr: stdout is for what was asked for. */
export function lineAsker({ stdin, stderr }: NodeJS.Process): AskLine | undefined {
  if (!stdin.isTTY || !stderr.isTTY) return undefined;
  return async (prompt, signal) => {
    // Nobody has answered a question before they saw it.
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
        // Whatever ended it, the next line begins at the left.
        if (line === undefined) stderr.write('\n');
        return line;
      });
    } finally {
      answered.abort();
      reading.close();
    }
  };
}
