import type { BigIntStats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import pLimit, { type LimitFunction } from 'p-limit';

import { errorCode, runAs } from '../../base/errors.ts';
import { quoteName, shellWord } from '../../base/plain-text.ts';
import { nodeFileSystem } from '../../discovery/folder/file-system.ts';
import { type InspectedDirectory, inspectDirectory } from '../../discovery/registry/directory-trust.ts';
import { MAX_REGISTRATIONS, RegistrationReader } from '../../discovery/registry/registration-reader.ts';
import { listenerOn } from '../start/port.ts';
import { readClaim } from './claim.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from './registry-survey.ts';

/** The most connects and file reads at once. */
const PARALLEL = 16;
/** A starting instance writes its password a moment before its registration, so a young password may be needed. */
export const OLD_PASSWORD_MS = 3_600_000;

/** Rejects with the reason why `directory` cannot be read, and what to do. */
export async function takeSurvey(directory: string, signal: AbortSignal): Promise<RegistrySurvey> {
  const surveyor = { host: hostname(), uid: process.geteuid?.() };
  const inspected = await inspect(directory);
  if (inspected === undefined) {
    const nothing = { registrations: [], odd: [], claims: [], passwords: [], leftOut: 0 };
    return { ...surveyor, ...nothing, directory, isMissing: true, isOursAlone: false };
  }
  const { path } = inspected;
  const [{ files, leftOut }, names] = await Promise.all([
    new RegistrationReader(nodeFileSystem).read(path, signal),
    readdir(path),
  ]).catch((error: unknown) => {
    throw explained(error, inspected);
  });
  const limit = pLimit(PARALLEL);
  const [registrations, claims, passwords] = await Promise.all([
    Promise.all(files.flatMap((file) => ('stats' in file ? [limit(() => surveyed(file))] : []))),
    readClaims(path, names, limit),
    listPasswords(join(path, '.credentials'), limit),
  ]);
  const odd = files.flatMap((file) => ('problem' in file ? [{ fileName: file.fileName, reason: file.problem }] : []));
  return {
    ...surveyor,
    directory: path,
    ownerUid: inspected.ownerUid,
    isMissing: false,
    isOursAlone: inspected.trust.level === 'trusted',
    registrations,
    odd,
    claims,
    passwords,
    leftOut,
  };
}

/** Whether only this user can write to it and to the links that lead there. Undefined if it does not exist. */
export async function inspect(directory: string): Promise<InspectedDirectory | undefined> {
  try {
    return await inspectDirectory(directory, { explicit: false, uid: process.geteuid?.() }, nodeFileSystem);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') return undefined;
    const shown = quoteName(directory);
    if (code === 'ENOTDIR')
      throw new Error(`the registry directory ${shown} is no directory; remove it, or set another`, { cause: error });
    throw new Error(`cannot read the registry directory ${shown}: ${code ?? String(error)}`, { cause: error });
  }
}

function explained(error: unknown, { path, stats, ownerUid }: InspectedDirectory): unknown {
  const code = errorCode(error);
  if (code !== 'EACCES' && code !== 'EPERM') return error;
  const advice =
    ownerUid === process.geteuid?.()
      ? `run: chmod u+rx ${shellWord(path)}`
      : `it belongs to uid ${ownerUid}: ${runAs(stats)}`;
  return new Error(`cannot read the registry directory ${quoteName(path)}: ${code}; ${advice}`, { cause: error });
}

/** Stays the same until the file is replaced or written; moving the file does not change it. */
export function fileVersion({ dev, ino, mtimeNs, size }: BigIntStats): string {
  return `${dev}:${ino}:${mtimeNs}:${size}`;
}

type ReadFile = Extract<Awaited<ReturnType<RegistrationReader['read']>>['files'][number], { readonly stats: unknown }>;

async function surveyed({ fileName, registration, stats }: ReadFile): Promise<SurveyedRegistration> {
  const { id, hostname: host, port, localPort, cwd } = registration;
  return {
    name: fileName.slice(0, -'.json'.length),
    isMine: Number(stats.uid) === process.geteuid?.(),
    ownerUid: Number(stats.uid),
    version: fileVersion(stats),
    registration: { id, hostname: host, port, localPort, cwd },
    listens: await listenerOn(port),
  };
}

async function readClaims(directory: string, names: readonly string[], limit: LimitFunction): Promise<SurveyedClaim[]> {
  const held = names.flatMap((name) => /^\.(.+)\.claim$/s.exec(name)?.[1] ?? []).toSorted();
  const claims = await Promise.all(
    held.slice(0, MAX_REGISTRATIONS).map((name) => limit(() => readClaim(directory, name))),
  );
  return claims.filter((claim) => claim !== undefined);
}

async function listPasswords(folder: string, limit: LimitFunction): Promise<RegistrySurvey['passwords']> {
  // A link may lead to another folder's files.
  const isFolder = await lstat(folder).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  const ids = isFolder ? await readdir(folder).catch(() => []) : [];
  const found = await Promise.all(
    ids
      .filter((id) => /^[A-Za-z0-9_-]{1,64}$/.test(id))
      .toSorted()
      .slice(0, MAX_REGISTRATIONS)
      .map((id) =>
        limit(async () => {
          const stats = await lstat(join(folder, id)).catch(() => undefined);
          if (stats?.isFile() !== true) return undefined;
          return { id, isMine: stats.uid === process.geteuid?.(), isOld: Date.now() - stats.mtimeMs > OLD_PASSWORD_MS };
        }),
      ),
  );
  return found.filter((one) => one !== undefined);
}
