import { join, resolve } from 'node:path';
import type { BigIntStats } from 'node:fs';
import { errorCode, octalMode, runAs } from '../../base/errors.ts';
import { quoteShort, shellWord, singleLine } from '../../base/plain-text.ts';
import type { Candidate, Note, Trust } from '../../model/candidate.ts';
import { nodeFileSystem, type FileSystem } from '../folder/file-system.ts';
import { readSmallFile } from '../folder/small-file.ts';
import { WatchedFolders } from '../folder/watched-folders.ts';
import type { RegistryDependencies } from '../registry/registry.ts';
import { SourceUnavailableError, type Scan } from '../source.ts';
import { readServiceFile, type ServiceFile } from './service-file.ts';

export const SERVICE_SOURCE = 'service';

export interface ServiceOptions {
  /** State directory of this user's OpenCode. */
  readonly directory: string;
}

/** OpenCode 2 writes one for each installed channel. */
const SERVICE_FILE = /^service(?:-[\w.-]{1,64})?\.json$/;
/** The preview (1.18.18) keeps its password in a separate file. */
const PREVIEW_FILE = 'server.json';
const PREVIEW_PASSWORD_FILE = 'password';
/** OpenCode has a few channels. */
const MAX_FILES = 16;
const MAX_PATH_CHARS = 500;
const OPEN_TO_OTHERS = 0o077n;

/** This user's OpenCode 2 services, from the files they write. Reads only; a stale file remains a candidate. */
export function createServiceSource({ directory }: ServiceOptions, dependencies: RegistryDependencies): WatchedFolders {
  const folder = new ServiceFolder(resolve(directory), dependencies);
  return new WatchedFolders({
    name: SERVICE_SOURCE,
    paths: [folder.path],
    isRelevant: (fileName) => isServiceFile(fileName) || fileName === PREVIEW_PASSWORD_FILE,
    scan: (signal) => folder.scan(signal),
    fs: folder.fs,
    logger: dependencies.logger,
  });
}

function isServiceFile(fileName: string): boolean {
  return SERVICE_FILE.test(fileName) || fileName === PREVIEW_FILE;
}

/** Empty if the file is gone. */
interface Reading {
  readonly candidate?: Candidate;
  readonly problem?: string;
}

interface Secret {
  readonly password?: string;
  /** Why others may have written or read it. */
  readonly distrust?: string;
}

class ServiceFolder {
  readonly path: string;
  readonly fs: FileSystem;
  readonly #uid: number | undefined;
  readonly #hostname: string;

  constructor(path: string, { fs = nodeFileSystem, uid, hostname }: RegistryDependencies) {
    this.path = path;
    this.fs = fs;
    this.#uid = uid;
    this.#hostname = hostname;
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    const fileNames = (await this.#list()).filter(isServiceFile).toSorted();
    const candidates: Candidate[] = [];
    const notes: Note[] = [];
    for (const fileName of fileNames.slice(0, MAX_FILES)) {
      signal.throwIfAborted();
      const { candidate, problem } = await this.#read(fileName);
      if (candidate !== undefined) candidates.push(candidate);
      if (problem !== undefined) notes.push({ subject: this.#shown(fileName), reason: problem });
    }
    if (fileNames.length > MAX_FILES) {
      const reason = `holds ${fileNames.length} service files, and only ${MAX_FILES} are read; remove those of services that ended`;
      notes.push({ subject: this.#shown(), reason });
    }
    return { candidates, notes };
  }

  async #list(): Promise<string[]> {
    try {
      return await this.fs.readdir(this.path);
    } catch (error) {
      const code = errorCode(error);
      if (code === undefined) throw error;
      const isMissing = code === 'ENOENT' || code === 'ENOTDIR';
      throw isMissing
        ? new SourceUnavailableError(`no OpenCode has run here: there is no folder ${this.#shown()}`, { cause: error })
        : new Error(`cannot read the folder ${this.#shown()}: ${code}`, { cause: error });
    }
  }

  async #read(fileName: string): Promise<Reading> {
    const file = await readSmallFile(join(this.path, fileName), this.fs);
    if (file === undefined) return {};
    if ('problem' in file) return { problem: file.problem };
    const service = readServiceFile(file.content);
    if ('problem' in service) return { problem: service.problem };
    const secret: Secret = fileName === PREVIEW_FILE ? await this.#previewPassword() : service;
    const distrust = this.#distrust(fileName, file.stats) ?? secret.distrust;
    const trust: Trust = distrust === undefined ? { level: 'trusted' } : { level: 'untrusted', reason: distrust };
    const candidate = this.#candidate(fileName, service, trust, secret.password);
    return { candidate, ...(distrust !== undefined && { problem: `untrusted: ${distrust}` }) };
  }

  #candidate(
    fileName: string,
    { url, port, pid, version }: ServiceFile,
    trust: Trust,
    password: string | undefined,
  ): Candidate {
    const isPreview = fileName === PREVIEW_FILE;
    return {
      source: SERVICE_SOURCE,
      // The file's name, not the process: a restarted service keeps its key.
      key: fileName.replace(/\.json$/, ''),
      endpoint: { url, route: 'loopback', holderPid: pid },
      claims: {
        hostname: this.#hostname,
        localPort: port,
        service: { pid, ...(version !== undefined && { version }), ...(isPreview && { isPreview }) },
      },
      trust,
      ...(trust.level === 'trusted' &&
        password !== undefined && {
          credential: { username: 'opencode', password: { kind: 'value', value: password } },
        }),
    };
  }

  /** The whole file, newline included, as the preview itself reads it. */
  async #previewPassword(): Promise<Secret> {
    const file = await readSmallFile(join(this.path, PREVIEW_PASSWORD_FILE), this.fs);
    if (file === undefined) return {};
    if ('problem' in file) return { distrust: `the file "${PREVIEW_PASSWORD_FILE}" beside it ${file.problem}` };
    const distrust = this.#distrust(PREVIEW_PASSWORD_FILE, file.stats);
    if (distrust !== undefined) return { distrust };
    const password = new TextDecoder().decode(file.content);
    return password === '' ? {} : { password };
  }

  /** Why another user may have written or read the file, or undefined if only this user can have. */
  #distrust(fileName: string, { uid, gid, mode }: BigIntStats): string | undefined {
    const path = this.#shown(fileName);
    if (this.#uid === undefined) return `the owner of ${path} cannot be checked on this system`;
    if (Number(uid) !== this.#uid) {
      const advice = this.#uid === 0 ? runAs({ uid, gid }) : 'remove it if you did not put it there';
      return `${path} belongs to uid ${uid}, not to this user (uid ${this.#uid}); ${advice}`;
    }
    if ((mode & OPEN_TO_OTHERS) === 0n) return undefined;
    const word = shellWord(singleLine(join(this.path, fileName), MAX_PATH_CHARS));
    return `other users have access to ${path} (mode ${octalMode(mode)}); run: chmod 600 ${word}`;
  }

  #shown(fileName = ''): string {
    return quoteShort(join(this.path, fileName), MAX_PATH_CHARS);
  }
}
