import { homedir } from 'node:os';

import type { Output } from '../../base/program.ts';
import { readTextFile } from '../../config/file/text-file.ts';
import { loadSettings } from '../../config/load.ts';
import { quote } from '../../config/quote.ts';
import { SettingsError } from '../../config/settings.ts';
import { HELP_TOPICS, USAGES } from '../terminal/help.ts';
import { readBashLine } from './bash-line.ts';
import { candidates } from './candidates.ts';
import { knownNames } from './known-names.ts';
import { SCRIPTS, SHELLS } from './scripts.ts';

const USAGE = 'opencode-mcp completion bash|zsh|fish';

/** `opencode-mcp completion SHELL`. @throws {SettingsError} there is no such shell */
export function printScript(argv: readonly string[], _: NodeJS.Process, { print }: Output): void {
  const [name = '', ...more] = argv;
  const shell = SHELLS.find((one) => one === name);
  if (shell === undefined || more.length > 0)
    throw new SettingsError(`completion: expected ${SHELLS.join(', ')}, got ${quote(argv.join(' '))}: ${USAGE}`);
  print(SCRIPTS[shell]);
}

/**
 * Answers a completion script with a candidate per line: for `bash LINE BREAKS` the replacements, for `zsh|fish WORD…` (the program
 * first) every candidate for the last word.
 */
export async function complete([shell = '', ...asked]: readonly string[], { print }: Output): Promise<void> {
  const lines = shell === 'bash' ? await forBash(asked) : await candidatesFor(asked.slice(1, -1), asked.at(-1) ?? '');
  print(lines.map((line) => `${line}\n`).join(''));
}

async function forBash([line = '', wordBreaks = '']: readonly string[]): Promise<readonly string[]> {
  const { words, current, replacement } = readBashLine(line, wordBreaks);
  const all = await candidatesFor(words.slice(1), current);
  return all.filter((one) => one.startsWith(current)).map(replacement);
}

function candidatesFor(words: readonly string[], current: string): Promise<readonly string[]> {
  return candidates({ words, current, commands: USAGES, topics: ['init', ...HELP_TOPICS], names });
}

/** None with invalid settings: the command itself reports these. */
async function names(): Promise<readonly string[]> {
  const from = { env: process.env, home: homedir(), cwd: process.cwd(), readFile: readTextFile };
  try {
    const { settings } = await loadSettings({ argv: [], ...from });
    return await knownNames(settings);
  } catch (error) {
    if (error instanceof SettingsError) return [];
    throw error;
  }
}
