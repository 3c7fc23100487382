import type { FileHandle } from 'node:fs/promises';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/file-system.ts';
import { createRegistrySource, type RegistryDependencies, type RegistryOptions, type RegistrySource } from '../../src/discovery/registry.ts';
import { silentLogger } from '../../src/log.ts';
import type { Note, Scan } from '../../src/discovery/source.ts';

/** This machine's name in these tests. */
export const HOSTNAME = 'this-machine';

/** A source over `directory` as the user that runs the test, unless told otherwise. */
export function registrySource(directory: string, changed: Partial<RegistryDependencies & RegistryOptions> = {}): RegistrySource {
  const { explicit = true, ...dependencies } = changed;
  return createRegistrySource({ directory, explicit }, { logger: silentLogger, uid: process.getuid?.(), hostname: HOSTNAME, ...dependencies });
}

export function fileSystem(changed: Partial<FileSystem>): FileSystem {
  return { ...nodeFileSystem, ...changed };
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: as the test wants it`), { code });
}

/** The reasons of all notes whose subject ends in `name`, in one text; empty where there are none. */
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
export function withCalls(handle: FileHandle, calls: { readonly [name: string | symbol]: () => Promise<unknown> }): FileHandle {
  return new Proxy(handle, {
    get(target, property) {
      const value: unknown = calls[property] ?? Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
