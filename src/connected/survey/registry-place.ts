import { lstat, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { quoted } from '../../base/plain-text.ts';
import type { Settings } from '../../config/settings.ts';
import { MAX_SHOWN_CHARS } from '../shown.ts';

/** The settings that decide which registry directory is used. Its path is absolute, or begins with `~/`. */
export type RegistryPlace = Pick<Settings, 'registryDir' | 'stateDir'>;

/** The directory in which this user's instances are registered, by the rule of `remote-program.ts`. */
export async function chooseDirectory({ registryDir: { path, explicit }, stateDir }: RegistryPlace): Promise<string> {
  const directory = path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
  if (!directory.startsWith('/')) {
    throw new Error(
      `expected an absolute registry directory, or one that begins with ~/, got ${quoted(path, MAX_SHOWN_CHARS)}`,
    );
  }
  if (explicit) return directory;
  const own = join(stateDir, 'registry');
  const isOwnInUse = await stat(own).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  return isOwnInUse || (await isOfAnotherUser(directory)) ? own : directory;
}

async function isOfAnotherUser(path: string): Promise<boolean> {
  return lstat(path).then(
    ({ uid }) => uid !== process.geteuid?.(),
    () => false,
  );
}
