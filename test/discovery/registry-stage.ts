import { mkdirSync, writeFileSync, type BigIntStats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/folder/file-system.ts';
import type { WatchedFolders } from '../../src/discovery/folder/watched-folders.ts';
import {
  createRegistrySource,
  type RegistryDependencies,
  type RegistryOptions,
} from '../../src/discovery/registry/registry.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { Note } from '../../src/model/candidate.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { tempDir } from '../rig/temp.ts';

/** This machine's name in these tests. */
export const HOSTNAME = 'this-machine';

/** A source over `directory` for the user that runs the test. */
export function registrySource(
  directory: string,
  changed: Partial<RegistryDependencies & RegistryOptions> = {},
): WatchedFolders {
  const { explicit = true, own, ...dependencies } = changed;
  return createRegistrySource(
    { directory, explicit, ...(own !== undefined && { own }) },
    { logger: silentLogger, uid: process.getuid?.(), hostname: HOSTNAME, ...dependencies },
  );
}

export function fileSystem(changed: Partial<FileSystem>): FileSystem {
  return { ...nodeFileSystem, ...changed };
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}

/** The joined reasons of all notes whose subject ends in `name`. */
export function notesOn(scan: { readonly notes: readonly Note[] }, name: string): string {
  return scan.notes
    .filter(({ subject }) => subject.endsWith(name))
    .map(({ reason }) => reason)
    .join('\n');
}

export function keysOf(scan: Scan): string[] {
  return scan.candidates.map(({ key }) => key);
}

/** `handle` with some of its calls replaced. */
export function withCalls(
  handle: FileHandle,
  calls: { readonly [name: string | symbol]: () => Promise<unknown> },
): FileHandle {
  return new Proxy(handle, {
    get(target, property) {
      const value: unknown = calls[property] ?? Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** A temporary folder with an empty registry directory in it. */
export interface RegistryFolder extends AsyncDisposable {
  /** Mode 0700, like the directory. */
  readonly path: string;
  readonly directory: string;
  /** Writes a file (0644) into the directory, as JSON unless it is text or bytes; returns its path. */
  readonly put: (fileName: string, content?: unknown) => string;
}

export function registryFolder(): RegistryFolder {
  const folder = tempDir('registry');
  const directory = join(folder.path, 'reg');
  mkdirSync(directory, 0o700);
  return {
    path: folder.path,
    directory,
    put: (fileName, content = { name: fileName, port: 4096 }) => {
      const path = join(directory, fileName);
      const isRaw = typeof content === 'string' || Buffer.isBuffer(content);
      writeFileSync(path, isRaw ? content : JSON.stringify(content), { mode: 0o644 });
      return path;
    },
    [Symbol.asyncDispose]: () => folder.close(),
  };
}

/** A file system that reports the given stats. */
export function withFacts(facts: Partial<BigIntStats>): FileSystem {
  return fileSystem({
    open: async (path, flags) => {
      const handle = await nodeFileSystem.open(path, flags);
      return withCalls(handle, { stat: async () => Object.assign(await handle.stat({ bigint: true }), facts) });
    },
    lstat: async (path) => Object.assign(await nodeFileSystem.lstat(path), facts),
  });
}
