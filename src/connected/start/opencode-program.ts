import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { shownPath } from '../../config/quote.ts';
import { SettingsError } from '../../config/settings.ts';

/** The absolute path of the opencode to start: `bin` itself, or the first program of that name on PATH. @throws {SettingsError} */
export async function findOpencode(bin: string, searchPath: string | undefined): Promise<string> {
  if (bin.includes('/')) {
    if (await isProgram(bin)) return bin;
    throw new SettingsError(`OPENCODE_BIN: ${shownPath(bin)} is no program that can be run; set it to opencode's path`);
  }
  for (const folder of (searchPath ?? '').split(delimiter)) {
    // An empty or relative entry leads into the project, which may bring its own program of that name.
    const path = join(folder, bin);
    if (folder.startsWith('/') && (await isProgram(path))) return path;
  }
  throw new SettingsError(
    `there is no ${shownPath(bin)} on PATH; install it (npm install --global opencode-ai) or set OPENCODE_BIN to its path`,
  );
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
