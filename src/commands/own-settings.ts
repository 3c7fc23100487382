import { homedir } from 'node:os';

import { type LoadedSettings, loadSettings } from '../config/load.ts';
import { readTextFile } from '../config/file/text-file.ts';

/** By these words of the command line, and this process's surroundings. @throws {SettingsError} */
export async function ownSettings(argv: readonly string[], process: NodeJS.Process): Promise<LoadedSettings> {
  const { env } = process;
  return await loadSettings({ argv, env, home: homedir(), cwd: process.cwd(), readFile: readTextFile });
}
