import { homedir } from 'node:os';

import { type LoadedSettings, loadSettings } from '../config/load.ts';
import type { CommandArguments } from '../config/flags.ts';
import { readTextFile } from '../config/file/text-file.ts';

/** By these words of the command line, and this process's surroundings. @throws {SettingsError} */
export async function ownSettings(
  argv: readonly string[],
  process: NodeJS.Process,
  command?: CommandArguments,
): Promise<LoadedSettings> {
  const { env } = process;
  return await loadSettings({
    argv,
    ...(command && { command }),
    env,
    home: homedir(),
    cwd: process.cwd(),
    readFile: readTextFile,
  });
}
