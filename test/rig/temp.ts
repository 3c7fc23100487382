import { mkdirSync, mkdtempSync, realpathSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { forgetDirectory, guardDirectory } from './orphan-guard.ts';

/** A directory that is removed when this process ends at the latest. */
export interface TempDir extends AsyncDisposable {
  /** Absolute, with symbolic links resolved: opencode reports its directory that way. */
  readonly path: string;
  /** TMPDIR for child processes, which end with this process. */
  readonly tmp: string;
  /** Removes the directory. End the processes that use it first. */
  close(): Promise<void>;
}

/** Creates `<tmp>/<label>-XXXXXX`, mode 0700. */
export function tempDir(label = 'opencode-mcp-test'): TempDir {
  const path = realpathSync(mkdtempSync(join(tmpdir(), `${label}-`)));
  guardDirectory(path);
  const tmp = join(path, 'tmp');
  mkdirSync(tmp);
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= remove(path));
  return { path, tmp, close, [Symbol.asyncDispose]: close };
}

async function remove(path: string): Promise<void> {
  // Children of a killed process (git, a shell) may still be writing; ENOTEMPTY is then temporary.
  await rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  forgetDirectory(path);
}
