import { join, resolve } from 'node:path';
import type { BigIntStats } from 'node:fs';
import * as z from 'zod';
import { runAs } from '../../base/errors.ts';
import { quoteName, shellWord, singleLine } from '../../base/plain-text.ts';
import type { Candidate, Note, Trust } from '../../model/candidate.ts';
import { fileErrorCode, nodeFileSystem, type FileSystem } from '../folder/file-system.ts';
import { readSmallFile } from '../folder/small-file.ts';
import { WatchedFolders } from '../folder/watched-folders.ts';
import type { RegistryDependencies } from '../registry/registry.ts';
import { SourceUnavailableError, type Scan } from '../source.ts';
import { readServiceFile, type ServiceFile } from './service-file.ts';

export const SERVICE_SOURCE = 'service';

export const serviceOptions = z.object({
  /** Where the person's own OpenCode keeps its state. */
  directory: z.string().min(1),
});
export type ServiceOptions = z.infer<typeof serviceOptions>;

/** OpenCode 2 writes one for each channel that a person installed. */
const SERVICE_FILE = /^service(?:-[\w.-]{1,64})?\.json$/;
/** The preview (1.18.18) writes its password apart from the rest. */
const PREVIEW_FILE = 'server.json';
const PREVIEW_PASSWORD_FILE = 'password';
/** There are a few channels. */
const MAX_FILES = 16;
const MAX_PATH_CHARS = 500;
const OPEN_TO_OTHERS = 0o077n;

/** The OpenCode 2 services of this user, as they write themselves down. Reads only; a file that was left behind stays a candidate. */
export function createServiceSource({ directory }: ServiceOptions, dependencies: RegistryDependencies): WatchedFolders {
  const folder = new ServiceFolder(resolve(directory), dependencies);
  return new WatchedFolders({
    name: SERVICE_SOURCE,
    paths: [folder.path],
    isRelevant: (fileName) => isServiceFile(fileName) || fileName === PREVIEW_PASSWORD_FILE,
    look: (signal) => folder.look(signal),
    fs: folder.fs,
    logger: dependencies.logger,
  });
}

function isServiceFile(fileName: string): boolean {
  return SERVICE_FILE.test(fileName) || fileName === PREVIEW_FILE;
}

/** What one file gives: a candidate, a note, both, or none where it is gone. */
interface Reading {
  readonly candidate?: Candidate;
  readonly problem?: string;
}

interface Secret {
  readonly password?: string;
  /** Why it is none of ours alone. */
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

  async look(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    const fileNames = (await this.#list()).filter(isServiceFile).toSorted();
    const candidates: Candidate[] = [];
    const notes: Note[] = [];
    for (const fileName of fileNames.slice(0, MAX_FILES)) {
      signal.throwIfAborted();
      const { candidate, problem } = await this.#read(fileName);
      if (candidate !== undefined) candidates.push(candidate);
      if (problem !== undefined) notes.push({ subject: shown(join(this.path, fileName)), reason: problem });
    }
    if (fileNames.length > MAX_FILES) {
      const reason = `holds ${fileNames.length} files of services, and ${MAX_FILES} are read; remove those of services that ended`;
      notes.push({ subject: shown(this.path), reason });
    }
    return { candidates, notes };
  }

  async #list(): Promise<string[]> {
    try {
      return await this.fs.readdir(this.path);
    } catch (error) {
      const code = fileErrorCode(error);
      if (code === 'ENOENT' || code === 'ENOTDIR')
        throw new SourceUnavailableError(`no OpenCode has run here: there is no folder ${shown(this.path)}`, {
          cause: error,
        });
      if (code === undefined) throw error;
      throw new Error(`cannot read the folder ${shown(this.path)}: ${code}`, { cause: error });
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
      // Of the file, not of the process: a service that starts again is the same one.
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

  /** The whole file, as the preview itself takes it. */
  async #previewPassword(): Promise<Secret> {
    const file = await readSmallFile(join(this.path, PREVIEW_PASSWORD_FILE), this.fs);
    if (file === undefined) return {};
    if ('problem' in file) return { distrust: `the file "${PREVIEW_PASSWORD_FILE}" beside it ${file.problem}` };
    const distrust = this.#distrust(PREVIEW_PASSWORD_FILE, file.stats);
    if (distrust !== undefined) return { distrust };
    const password = new TextDecoder().decode(file.content);
    return password === '' ? {} : { password };
  }

  /** Why nobody but this user need have written or read the file, or undefined where only they can have. */
  #distrust(fileName: string, { uid, gid, mode }: BigIntStats): string | undefined {
    const plain = join(this.path, fileName);
    const path = shown(plain);
    if (this.#uid === undefined) return `who owns ${path} cannot be checked on this system`;
    if (Number(uid) !== this.#uid) {
      const advice = this.#uid === 0 ? runAs({ uid, gid }) : 'remove it if you did not put it there';
      return `${path} belongs to uid ${uid}, not to us (uid ${this.#uid}); ${advice}`;
    }
    if ((mode & OPEN_TO_OTHERS) === 0n) return undefined;
    const octal = (mode & 0o7777n).toString(8).padStart(4, '0');
    return `other users have access to ${path} (mode ${octal}); run: chmod 600 ${shellWord(singleLine(plain, MAX_PATH_CHARS))}`;
  }
}

function shown(path: string): string {
  return quoteName(singleLine(path, MAX_PATH_CHARS));
}
