import type { BigIntStats } from 'node:fs';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { errorCode } from '../../base/errors.ts';
import type { FileSystem } from '../folder/file-system.ts';
import { readSmallFile, unreadable } from '../folder/small-file.ts';
import { readRegistration, type Registration } from './registration.ts';

/** Far above any relay seen; a directory with more is broken, and probing all of it would starve the rest. */
export const MAX_REGISTRATIONS = 10_000;
/** Keeps Node's four file threads busy; more would only hold descriptors. */
const CONCURRENCY = 16;

export type RegistrationFile =
  | {
      readonly fileName: string;
      readonly registration: Registration;
      readonly remarks: readonly string[];
      readonly stats: BigIntStats;
    }
  | { readonly fileName: string; readonly problem: string };

export interface Registrations {
  /** Ordered by file name. */
  readonly files: readonly RegistrationFile[];
  /** Registrations beyond the limit; the newest were kept. */
  readonly leftOut: number;
}

interface Listed {
  readonly fileName: string;
  /** Undefined if the name is not valid UTF-8. */
  readonly stats: BigIntStats | undefined;
}

interface Known {
  readonly version: string;
  readonly file: RegistrationFile;
}

/** `opencode-connected` writes to a name with a leading dot, then renames. */
export function isRegistrationName(fileName: string): boolean {
  return fileName.endsWith('.json') && !fileName.startsWith('.');
}

/** Reads a directory repeatedly, opening only the files that changed. */
export class RegistrationReader {
  readonly #fs: FileSystem;
  readonly #maxFiles: number;
  /** Filled file by file, so that a scan that timed out is continued by the next one. */
  readonly #known = new Map<string, Known>();

  constructor(fs: FileSystem, maxFiles = MAX_REGISTRATIONS) {
    this.#fs = fs;
    this.#maxFiles = maxFiles;
  }

  /** Rejects with the system's error when the directory cannot be read; stops soon after `signal` aborts. */
  async read(directory: string, signal: AbortSignal): Promise<Registrations> {
    const fileNames = (await this.#fs.readdir(directory)).filter(isRegistrationName).toSorted();
    const listed = await each(fileNames, signal, (fileName) => this.#list(directory, fileName));
    const newest = listed.filter(isRegular).toSorted(newestFirst);
    const beyond = new Set<Listed>(newest.slice(this.#maxFiles));
    const kept = listed.filter((file) => !beyond.has(file));
    const files = await each(kept, signal, (file) => this.#read(directory, file));
    const present = new Set(files.map(({ fileName }) => fileName));
    for (const fileName of this.#known.keys()) if (!present.has(fileName)) this.#known.delete(fileName);
    return { files, leftOut: beyond.size };
  }

  /** Undefined if it was removed since the directory was listed. */
  async #list(directory: string, fileName: string): Promise<Listed | undefined> {
    try {
      return { fileName, stats: await this.#fs.lstat(join(directory, fileName)) };
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      // Node decodes names as UTF-8, so a name in another encoding cannot be opened.
      return fileName.includes('\ufffd') ? { fileName, stats: undefined } : undefined;
    }
  }

  async #read(directory: string, { fileName, stats }: Listed): Promise<RegistrationFile | undefined> {
    if (!stats) return { fileName, problem: 'its name is not UTF-8; rename it' };
    const problem = unreadable(stats);
    if (problem !== undefined) return { fileName, problem };
    const before = this.#known.get(fileName);
    if (before?.version === versionOf(stats)) return before.file;
    const read = await readSmallFile(join(directory, fileName), this.#fs);
    if (read === undefined) return undefined;
    if ('problem' in read) return { fileName, problem: read.problem };
    const reading = readRegistration(read.content, fileName);
    const file: RegistrationFile =
      'problem' in reading ? { fileName, problem: reading.problem } : { fileName, ...reading, stats: read.stats };
    this.#known.set(fileName, { version: versionOf(read.stats), file });
    return file;
  }
}

/** The results of `work` that are defined. Rejects only when all work has ended, so that no file is open then. */
async function each<In, Out>(
  items: readonly In[],
  signal: AbortSignal,
  work: (item: In) => Promise<Out | undefined>,
): Promise<Out[]> {
  const limit = pLimit(CONCURRENCY);
  const tasks = items.map((item) =>
    limit(() => {
      signal.throwIfAborted();
      return work(item);
    }),
  );
  await Promise.allSettled(tasks);
  return (await Promise.all(tasks)).filter((result) => result !== undefined);
}

function isRegular(file: Listed): file is Listed & { readonly stats: BigIntStats } {
  return file.stats?.isFile() === true;
}

function newestFirst(one: { readonly stats: BigIntStats }, other: { readonly stats: BigIntStats }): number {
  if (one.stats.mtimeNs === other.stats.mtimeNs) return 0;
  return one.stats.mtimeNs > other.stats.mtimeNs ? -1 : 1;
}

/** Changes with content, owner and mode, because ctime cannot be set back. */
function versionOf(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.mtimeNs}:${stats.ctimeNs}:${stats.size}`;
}
