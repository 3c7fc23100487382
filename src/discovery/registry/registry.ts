import { dirname, join, resolve } from 'node:path';
import type { Logger } from '../../base/log.ts';
import { quoteShort } from '../../base/plain-text.ts';
import { fileProblem, inspectDirectory, type InspectedDirectory } from './directory-trust.ts';
import { fileIdentity, nodeFileSystem, type FileSystem } from '../folder/file-system.ts';
import { WatchedFolders } from '../folder/watched-folders.ts';
import { errorCode, reasonOf, runAs } from '../../base/errors.ts';
import type { Settings } from '../../config/settings.ts';
import { candidateOf, REGISTRY_SOURCE } from './registration-candidate.ts';
import {
  isRegistrationName,
  MAX_REGISTRATIONS,
  RegistrationReader,
  type Registrations,
} from './registration-reader.ts';
import type { Candidate, Note, Trust } from '../../model/candidate.ts';
import { boundedNotes, SourceUnavailableError, type Scan } from '../source.ts';

export { REGISTRY_SOURCE };

export interface RegistryOptions {
  /** Where `opencode-connected` registers instances. */
  readonly directory: string;
  /** The directory was configured; false for the default. */
  readonly explicit: boolean;
  /** Registry in this user's own state directory, used if the default one belongs to another user. */
  readonly own?: string;
}

/** Every directory in which this user's instances may be registered. */
export function registryOptionsOf({
  registryDir,
  stateDir,
}: Pick<Settings, 'registryDir' | 'stateDir'>): RegistryOptions {
  const { path: directory, explicit } = registryDir;
  return { directory, explicit, ...(!explicit && { own: join(stateDir, 'registry') }) };
}

export interface RegistryDependencies {
  readonly logger: Logger;
  /** Effective user id of this process; undefined on systems without user ids. */
  readonly uid: number | undefined;
  /** This machine's name, as `opencode-connected` writes it into a registration. */
  readonly hostname: string;
  readonly fs?: FileSystem;
  /** Registrations read from one directory. Default: `MAX_REGISTRATIONS`. */
  readonly maxRegistrations?: number;
}

/** Enough to show what is wrong with a directory; ten thousand would hide it. */
const MAX_NOTES = 100;
const MAX_PATH_CHARS = 500;
/** A directory that keeps being replaced faster than it is read is a mistake to report. */
const MAX_ATTEMPTS = 3;

/** The registry directories: one JSON file for each instance. Never writes or deletes. */
export function createRegistrySource(
  { directory, explicit, own }: RegistryOptions,
  dependencies: RegistryDependencies,
): WatchedFolders {
  const { fs = nodeFileSystem, logger } = dependencies;
  // Keys of the second directory have a prefix, so that the two share none.
  const directories = [new RegistryDirectory({ path: directory, explicit, prefix: '' }, dependencies)];
  if (own !== undefined)
    directories.push(new RegistryDirectory({ path: own, explicit: false, prefix: 'own/' }, dependencies));
  return new WatchedFolders({
    name: REGISTRY_SOURCE,
    paths: directories.map(({ path }) => path),
    isRelevant: isRegistrationName,
    scan: (signal) => scanAll(directories, signal),
    fs,
    logger,
  });
}

/** Fails if any directory fails, or if all are unavailable. */
async function scanAll(directories: readonly RegistryDirectory[], signal: AbortSignal): Promise<Scan> {
  const results = await Promise.allSettled(directories.map((directory) => directory.scan(signal)));
  const scans = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const errors: unknown[] = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  const failed = errors.find((error) => !(error instanceof SourceUnavailableError));
  if (failed !== undefined || scans.length === 0) throw failed ?? errors[0];
  // A missing directory holds nothing; one of another user may hold something.
  const hidden = errors.filter((error) => error instanceof Error && errorCode(error.cause) !== 'ENOENT');
  return {
    candidates: scans.flatMap(({ candidates }) => candidates),
    notes: scans.flatMap(({ notes }) => notes),
    ...(hidden.length > 0 && {
      dropped: hidden.map((error) => ({ subject: REGISTRY_SOURCE, reason: reasonOf(error) })),
    }),
  };
}

class RegistryDirectory {
  readonly path: string;
  readonly #explicit: boolean;
  readonly #prefix: string;
  readonly #uid: number | undefined;
  readonly #hostname: string;
  readonly #fs: FileSystem;
  readonly #maxRegistrations: number;
  readonly #reader: RegistrationReader;

  constructor(
    { path, explicit, prefix }: { readonly path: string; readonly explicit: boolean; readonly prefix: string },
    { uid, hostname, fs = nodeFileSystem, maxRegistrations = MAX_REGISTRATIONS }: RegistryDependencies,
  ) {
    this.path = resolve(path);
    this.#explicit = explicit;
    this.#prefix = prefix;
    this.#uid = uid;
    this.#hostname = hostname;
    this.#fs = fs;
    this.#maxRegistrations = maxRegistrations;
    this.#reader = new RegistrationReader(fs, maxRegistrations);
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    try {
      return await this.#scan(signal);
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  async #scan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    const rules = { explicit: this.#explicit, uid: this.#uid };
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt += 1) {
      const directory = await inspectDirectory(this.path, rules, this.#fs);
      signal.throwIfAborted();
      const registrations = await this.#reader.read(directory.path, signal);
      // If the directory was replaced meanwhile, names may be from one directory and content from another.
      const now = await this.#fs.stat(this.path);
      if (fileIdentity(now) === fileIdentity(directory.stats)) return this.#scanOf(directory, registrations);
    }
    throw new Error(
      `the registry directory ${this.#shownPath} was replaced each of the ${MAX_ATTEMPTS} times it was read; write into it instead`,
    );
  }

  #scanOf(directory: InspectedDirectory, { files, leftOut }: Registrations): Scan {
    const candidates: Candidate[] = [];
    const notes: Note[] = [];
    for (const file of files) {
      const path = join(directory.path, file.fileName);
      const subject = quoteShort(path, MAX_PATH_CHARS);
      if ('problem' in file) {
        notes.push({ subject, reason: file.problem });
        continue;
      }
      const distrust = directory.trust.level === 'trusted' ? fileProblem(path, file.stats, directory) : undefined;
      const trust: Trust = distrust === undefined ? directory.trust : { level: 'untrusted', reason: distrust };
      const site = { directory, trust, hostname: this.#hostname };
      const candidate = candidateOf(file.fileName, file.registration, site);
      candidates.push({ ...candidate, key: this.#prefix + candidate.key });
      const reasons = distrust === undefined ? file.remarks : [`untrusted: ${distrust}`, ...file.remarks];
      if (reasons.length > 0) notes.push({ subject, reason: reasons.join('; ') });
    }
    const bounded = boundedNotes(notes, MAX_NOTES, quoteShort(directory.path, MAX_PATH_CHARS));
    return { candidates, notes: [...this.#directoryNotes(directory, leftOut), ...bounded] };
  }

  async #explained(error: unknown): Promise<unknown> {
    const code = errorCode(error);
    if (code === 'ENOENT')
      return new SourceUnavailableError(`there is no registry directory at ${this.#shownPath}`, { cause: error });
    const failed = `cannot read the registry directory ${this.#shownPath}: ${code ?? String(error)}`;
    const foreign = await this.#foreignOwner();
    // The first user to create the default directory owns it and may put anything there.
    if (foreign !== undefined && !this.#explicit)
      return new SourceUnavailableError(`${failed}; ${foreign}`, { cause: error });
    if (code === undefined) return error;
    if (code === 'EACCES' || code === 'EPERM') {
      const user = this.#uid === undefined ? 'this user' : `uid ${this.#uid}`;
      const advice = foreign ?? `give ${user} read and search permission on it and on the folders above it`;
      return new Error(`${failed}; ${advice}`, { cause: error });
    }
    const isFile = '; it or a folder above it is a file: remove that, or set RELAY_REGISTRY_DIR to a directory';
    return new Error(failed + (code === 'ENOTDIR' ? isFile : ''), { cause: error });
  }

  /** Names the other user that owns the directory, or the nearest folder above it that exists, with advice. */
  async #foreignOwner(): Promise<string | undefined> {
    for (let at = this.path; ; at = dirname(at)) {
      const stats = await this.#fs.lstat(at).catch(() => undefined);
      if (stats === undefined && at !== dirname(at)) continue;
      if (stats === undefined || this.#uid === undefined || Number(stats.uid) === this.#uid) return undefined;
      const subject = at === this.path ? 'it' : quoteShort(at, MAX_PATH_CHARS);
      return `${subject} belongs to uid ${stats.uid}: ${runAs(stats)}`;
    }
  }

  #directoryNotes({ path, trust }: InspectedDirectory, leftOut: number): Note[] {
    const subject = quoteShort(path, MAX_PATH_CHARS);
    const notes: Note[] = [];
    if (trust.level === 'untrusted') notes.push({ subject, reason: `untrusted: ${trust.reason}` });
    if (leftOut > 0) {
      const reason = `holds ${leftOut} registrations more than the limit of ${this.#maxRegistrations}; the oldest were left out: remove dead ones`;
      notes.push({ subject, reason });
    }
    return notes;
  }

  get #shownPath(): string {
    return quoteShort(this.path, MAX_PATH_CHARS);
  }
}
