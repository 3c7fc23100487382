import { dirname, join, resolve } from 'node:path';
import * as z from 'zod';
import type { Logger } from '../../base/log.ts';
import { quoteName, singleLine } from '../../base/plain-text.ts';
import { fileProblem, inspectDirectory, type InspectedDirectory } from './directory-trust.ts';
import { fileErrorCode, fileIdentity, nodeFileSystem, type FileSystem } from '../folder/file-system.ts';
import { WatchedFolders } from '../folder/watched-folders.ts';
import { reasonOf, runAs } from '../../base/errors.ts';
import type { Settings } from '../../config/settings.ts';
import { candidateOf, REGISTRY_SOURCE } from './registration-candidate.ts';
import {
  isRegistrationName,
  MAX_REGISTRATIONS,
  RegistrationReader,
  type Registrations,
} from './registration-reader.ts';
import type { Candidate, Note, Trust } from '../../model/candidate.ts';
import { SourceUnavailableError, type DiscoverySource, type Scan } from '../source.ts';

export { REGISTRY_SOURCE };

export const registryOptions = z.object({
  /** Where `opencode-connected` registers instances. */
  directory: z.string().min(1),
  /** A person set it; else the default stands. */
  explicit: z.boolean(),
  /** Where this user's are registered whose default directory belongs to another user. */
  own: z.string().min(1).optional(),
});
export type RegistryOptions = z.infer<typeof registryOptions>;

/** Every directory in which this user's instances are registered. */
export function registryOptionsOf({
  registryDir,
  stateDir,
}: Pick<Settings, 'registryDir' | 'stateDir'>): RegistryOptions {
  const { path: directory, explicit } = registryDir;
  return { directory, explicit, ...(!explicit && { own: join(stateDir, 'registry') }) };
}

export interface RegistryDependencies {
  readonly logger: Logger;
  /** The user this process acts as; undefined where the system has no such thing. */
  readonly uid: number | undefined;
  /** This machine's name, as `opencode-connected` writes it into a registration. */
  readonly hostname: string;
  readonly fs?: FileSystem;
}

export interface RegistrySource extends DiscoverySource {
  changes(signal: AbortSignal): AsyncIterable<void>;
  close(): Promise<void>;
  /** Counts opened files: what a rescan of an unchanged directory saves. */
  readonly stats: { readonly filesRead: number };
}

/** Enough to see what is wrong with a directory; a listing of ten thousand would hide it. */
const MAX_NOTES = 100;
const MAX_PATH_CHARS = 500;
/** A directory that is replaced faster than it can be read is somebody's mistake, not something to spin on. */
const MAX_ATTEMPTS = 3;

interface Directory {
  readonly path: string;
  readonly explicit: boolean;
  /** Before each key, so that two directories share none. */
  readonly prefix: string;
  readonly reader: RegistrationReader;
}

/** The relay's registry directory: one JSON file for each instance. Reads only; never writes or deletes. */
export function createRegistrySource(options: RegistryOptions, dependencies: RegistryDependencies): RegistrySource {
  return new RegistryDirectorySource(options, dependencies);
}

class RegistryDirectorySource implements RegistrySource {
  readonly name = REGISTRY_SOURCE;
  readonly #directories: readonly Directory[];
  readonly #dependencies: RegistryDependencies;
  readonly #fs: FileSystem;
  readonly #folders: WatchedFolders;

  constructor(options: RegistryOptions, dependencies: RegistryDependencies) {
    const { directory, explicit, own } = options;
    const fs = dependencies.fs ?? nodeFileSystem;
    this.#dependencies = dependencies;
    this.#fs = fs;
    this.#directories = [
      { path: directory, explicit, prefix: '' },
      ...(own === undefined ? [] : [{ path: own, explicit: false, prefix: 'own/' }]),
    ].map((one) => ({ ...one, path: resolve(one.path), reader: new RegistrationReader(fs) }));
    this.#folders = new WatchedFolders({
      name: REGISTRY_SOURCE,
      paths: this.#directories.map(({ path }) => path),
      isRelevant: isRegistrationName,
      look: (signal) => this.#look(signal),
      fs,
      logger: dependencies.logger,
    });
  }

  get stats(): { readonly filesRead: number } {
    return { filesRead: this.#directories.reduce((sum, { reader }) => sum + reader.stats.filesRead, 0) };
  }

  scan(signal: AbortSignal): Promise<Scan> {
    return this.#folders.scan(signal);
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    return this.#folders.changes(signal);
  }

  close(): Promise<void> {
    return this.#folders.close();
  }

  /** All of them; one that is not there, or another user's and closed, holds nothing of ours. */
  async #look(signal: AbortSignal): Promise<Scan> {
    const looks = await Promise.allSettled(
      this.#directories.map((directory) =>
        this.#lookAt(directory, signal).catch(async (error: unknown) => {
          throw await this.#explained(error, directory);
        }),
      ),
    );
    const scans = looks.flatMap((look) => (look.status === 'fulfilled' ? [look.value] : []));
    const errors: unknown[] = looks.flatMap((look) => (look.status === 'rejected' ? [look.reason] : []));
    const failed = errors.find((error) => !(error instanceof SourceUnavailableError));
    if (failed !== undefined || scans.length === 0) throw failed ?? errors[0];
    const hidden = errors.filter((error) => !isMissing(error));
    return {
      candidates: scans.flatMap(({ candidates }) => candidates),
      notes: scans.flatMap(({ notes }) => notes),
      // Of the two default directories the one that is another user's; one that is not there holds nothing.
      ...(hidden.length > 0 && {
        dropped: hidden.map((error) => ({ subject: REGISTRY_SOURCE, reason: reasonOf(error) })),
      }),
    };
  }

  async #lookAt({ path, explicit, prefix, reader }: Directory, signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt += 1) {
      const directory = await inspectDirectory(path, { explicit, uid: this.#dependencies.uid }, this.#fs);
      signal.throwIfAborted();
      const registrations = await reader.read(directory.path, signal);
      // Names from one directory and content from another would be a part of each.
      const now = await this.#fs.stat(path);
      if (fileIdentity(now) === fileIdentity(directory.stats)) return this.#scanOf(directory, registrations, prefix);
    }
    throw new Error(
      `the registry directory ${shown(path)} was replaced each of the ${MAX_ATTEMPTS} times it was read; write into it instead`,
    );
  }

  #scanOf(directory: InspectedDirectory, { files, leftOut }: Registrations, prefix: string): Scan {
    const candidates: Candidate[] = [];
    const fileNotes: Note[] = [];
    for (const file of files) {
      const path = join(directory.path, file.fileName);
      const subject = shown(path);
      if ('problem' in file) {
        fileNotes.push({ subject, reason: file.problem });
        continue;
      }
      const distrust = directory.trust.level === 'trusted' ? fileProblem(path, file.stats, directory) : undefined;
      const trust: Trust = distrust === undefined ? directory.trust : { level: 'untrusted', reason: distrust };
      const site = { directory, trust, hostname: this.#dependencies.hostname };
      const candidate = candidateOf(file.fileName, file.registration, site);
      candidates.push({ ...candidate, key: prefix + candidate.key });
      const reasons = distrust === undefined ? file.remarks : [`untrusted: ${distrust}`, ...file.remarks];
      if (reasons.length > 0) fileNotes.push({ subject, reason: reasons.join('; ') });
    }
    return { candidates, notes: [...directoryNotes(directory, leftOut), ...bounded(fileNotes, shown(directory.path))] };
  }

  async #explained(error: unknown, { path, explicit }: Directory): Promise<unknown> {
    const code = fileErrorCode(error);
    if (code === 'ENOENT')
      return new SourceUnavailableError(`there is no registry directory at ${shown(path)}`, { cause: error });
    const failed = `cannot read the registry directory ${shown(path)}: ${code ?? String(error)}`;
    const theirs = await this.#anothers(path);
    // The first user to create the default directory owns it, and may put anything there.
    if (theirs !== undefined && !explicit) return new SourceUnavailableError(`${failed}; ${theirs}`, { cause: error });
    if (code === undefined) return error;
    if (code === 'EACCES' || code === 'EPERM') {
      const who = this.#dependencies.uid === undefined ? 'this user' : `uid ${this.#dependencies.uid}`;
      const advice = theirs ?? `give ${who} read and search permission on it and on the folders above it`;
      return new Error(`${failed}; ${advice}`, { cause: error });
    }
    if (code === 'ENOTDIR') {
      return new Error(
        `${failed}; it or a folder above it is a file: remove that, or set RELAY_REGISTRY_DIR to a directory`,
        { cause: error },
      );
    }
    return new Error(failed, { cause: error });
  }

  /** Which other user's it is, or whose folder it lies in, and what to do; undefined where it is ours. */
  async #anothers(path: string): Promise<string | undefined> {
    const { uid } = this.#dependencies;
    for (let at = path; ; at = dirname(at)) {
      const stats = await this.#fs.lstat(at).catch(() => undefined);
      if (stats === undefined && at !== dirname(at)) continue;
      if (stats === undefined || uid === undefined || Number(stats.uid) === uid) return undefined;
      return `${at === path ? 'it' : shown(at)} belongs to uid ${stats.uid}: ${runAs(stats)}`;
    }
  }
}

function directoryNotes(directory: InspectedDirectory, leftOut: number): Note[] {
  const subject = shown(directory.path);
  const notes: Note[] = [];
  if (directory.trust.level === 'untrusted') notes.push({ subject, reason: `untrusted: ${directory.trust.reason}` });
  if (leftOut > 0) {
    notes.push({
      subject,
      reason: `holds ${leftOut} registrations more than the ${MAX_REGISTRATIONS} that are read; the oldest were left out: remove dead ones`,
    });
  }
  return notes;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && fileErrorCode(error.cause) === 'ENOENT';
}

function bounded(notes: readonly Note[], subject: string): readonly Note[] {
  if (notes.length <= MAX_NOTES) return notes;
  return [...notes.slice(0, MAX_NOTES), { subject, reason: `and notes on ${notes.length - MAX_NOTES} more files` }];
}

function shown(path: string): string {
  return quoteName(singleLine(path, MAX_PATH_CHARS));
}
