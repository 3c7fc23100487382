import type { BigIntStats } from 'node:fs';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { fileErrorCode, type FileSystem } from '../folder/file-system.ts';
import { readSmallFile, unreadable } from '../folder/small-file.ts';
import { readRegistration, type Registration } from './registration.ts';

/** Far above any relay seen; a directory with more is broken, and probing it all would starve the rest. */
export const MAX_REGISTRATIONS = 10_000;
/** Node does file work on four threads: more in flight only holds more descriptors. */
const CONCURRENCY = 16;

/** One file of the directory and what it says. */
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
  /** Registrations beyond `MAX_REGISTRATIONS`; the newest were kept. */
  readonly leftOut: number;
}

interface Listed {
  readonly fileName: string;
  /** Undefined where the name could not be looked up. */
  readonly stats: BigIntStats | undefined;
}

interface Known {
  readonly version: string;
  readonly file: RegistrationFile;
}

/** The wrapper writes under a name that starts with a dot, then renames. */
export function isRegistrationName(fileName: string): boolean {
  return fileName.endsWith('.json') && !fileName.startsWith('.');
}

/** Reads a directory of registrations again and again, opening only the files that changed. */
export class RegistrationReader {
  readonly stats = { filesRead: 0 };
  readonly #fs: FileSystem;
  /** Filled as files are read, so that a scan that ran out of time is continued by the next. */
  readonly #known = new Map<string, Known>();

  constructor(fs: FileSystem) {
    this.#fs = fs;
  }

  /** Rejects with the system's error when the directory cannot be read; stops soon after `signal` aborts. */
  async read(directory: string, signal: AbortSignal): Promise<Registrations> {
    const fileNames = (await this.#fs.readdir(directory)).filter(isRegistrationName).toSorted();
    const limit = pLimit(CONCURRENCY);
    const each = async <In, Out>(
      items: readonly In[],
      work: (item: In) => Promise<Out | undefined>,
    ): Promise<Out[]> => {
      const tasks = items.map((item) =>
        limit(() => {
          signal.throwIfAborted();
          return work(item);
        }),
      );
      // All of them, so that no file is still open when this rejects.
      await Promise.allSettled(tasks);
      return (await Promise.all(tasks)).filter((result) => result !== undefined);
    };

    const listed = await each(fileNames, (fileName) => this.#list(directory, fileName));
    const newest = listed.filter(isRegular).toSorted(newestFirst);
    const beyond = new Set<Listed>(newest.slice(MAX_REGISTRATIONS));
    const files = await each(
      listed.filter((file) => !beyond.has(file)),
      (file) => this.#read(directory, file),
    );
    const present = new Set(files.map(({ fileName }) => fileName));
    for (const fileName of this.#known.keys()) if (!present.has(fileName)) this.#known.delete(fileName);
    return { files, leftOut: beyond.size };
  }

  /** Undefined when it was removed since the directory was listed: an instance that ended. */
  async #list(directory: string, fileName: string): Promise<Listed | undefined> {
    try {
      return { fileName, stats: await this.#fs.lstat(join(directory, fileName)) };
    } catch (error) {
      if (fileErrorCode(error) !== 'ENOENT') throw error;
      // Node decodes names as UTF-8, so that one which is not cannot be named to the system again.
      return fileName.includes('\ufffd') ? { fileName, stats: undefined } : undefined;
    }
  }

  async #read(directory: string, { fileName, stats }: Listed): Promise<RegistrationFile | undefined> {
    if (!stats) return { fileName, problem: 'its name is not UTF-8; rename it' };
    const problem = unreadable(stats);
    if (problem !== undefined) return { fileName, problem };
    const before = this.#known.get(fileName);
    if (before?.version === versionOf(stats)) return before.file;
    this.stats.filesRead += 1;
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

function isRegular(file: Listed): file is Listed & { readonly stats: BigIntStats } {
  return file.stats?.isFile() === true;
}

function newestFirst(one: { readonly stats: BigIntStats }, other: { readonly stats: BigIntStats }): number {
  if (one.stats.mtimeNs === other.stats.mtimeNs) return 0;
  return one.stats.mtimeNs > other.stats.mtimeNs ? -1 : 1;
}

/** Changes with the content, the owner and the mode: ctime cannot be set back. */
function versionOf(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.mtimeNs}:${stats.ctimeNs}:${stats.size}`;
}
