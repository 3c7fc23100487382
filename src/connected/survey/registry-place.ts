import { lstat, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

import { quoted } from '../../base/plain-text.ts';

export interface RegistryPlace {
  /** Absolute, or beginning with `~/`. */
  readonly directory: string;
  /** Nobody has chosen it: where it is another user's, this user's own is meant. */
  readonly isDefault: boolean;
  /** Absolute: this user's state folder, in which the own directory lies. */
  readonly stateDir: string;
}

const MAX_SHOWN_CHARS = 300;

/** The directory in which this user's instances are registered, by the rule of `remote-program.ts`. */
export async function chooseDirectory({ directory: given, isDefault, stateDir }: RegistryPlace): Promise<string> {
  const directory = given === '~' || given.startsWith('~/') ? join(homedir(), given.slice(1)) : given;
  if (!directory.startsWith('/')) {
    const shown = quoted(given, MAX_SHOWN_CHARS);
    throw new Error(`expected an absolute registry directory, or one that begins with ~/, got ${shown}`);
  }
  if (!isDefault) return directory;
  const own = join(stateDir, 'registry');
  const isOwnInUse = await stat(own).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  return isOwnInUse || (await isAnothers(directory)) ? own : directory;
}

async function isAnothers(path: string): Promise<boolean> {
  return lstat(path).then(
    ({ uid }) => uid !== process.geteuid?.(),
    () => false,
  );
}
