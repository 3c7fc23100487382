import { homedir } from 'node:os';

import { type LoadedSettings, loadSettings } from './load.ts';
import type { CommandArguments } from './flags.ts';
import { readTextFile } from './file/text-file.ts';

/** Loads the settings for `argv` with the environment and folders of this process. @throws {SettingsError} */
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
