import { lstat, readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import pLimit from 'p-limit';

import { errorCode, runAs } from '../../base/errors.ts';
import { quoteName, shellWord } from '../../base/plain-text.ts';
import { nodeFileSystem } from '../../discovery/folder/file-system.ts';
import { type InspectedDirectory, inspectDirectory } from '../../discovery/registry/directory-trust.ts';
import { MAX_REGISTRATIONS, RegistrationReader } from '../../discovery/registry/registration-reader.ts';
import { listenerOn } from '../start/port.ts';
import { readClaim } from './claim.ts';
import { fileVersion } from './file-version.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from './registry-survey.ts';

/** Connects in flight; a dead loopback port refuses at once. */
const CONNECTS = 16;
/** An instance that starts writes its password a moment before its registration. */
export const OLD_PASSWORD_MS = 3_600_000;

/** @throws what stands in the way of reading `directory`, with what to do */
export async function takeSurvey(directory: string, signal: AbortSignal): Promise<RegistrySurvey> {
  const nothing = {
    registrations: [],
    odd: [],
    claims: [],
    passwords: [],
    leftOut: 0,
    host: hostname(),
    uid: process.geteuid?.(),
  };
  const inspected = await inspect(directory);
  if (inspected === undefined) return { ...nothing, directory, isMissing: true, isOursAlone: false };
  const { path } = inspected;
  const [{ files, leftOut }, names] = await Promise.all([
    new RegistrationReader(nodeFileSystem).read(path, signal),
    readdir(path),
  ]).catch((error: unknown) => {
    throw explained(error, inspected);
  });
  const [registrations, claims, passwords] = await Promise.all([
    askPorts(files.flatMap((file) => ('stats' in file ? [surveyed(file)] : []))),
    readClaims(path, names),
    listPasswords(join(path, '.credentials')),
  ]);
  const odd = files.flatMap((file) => ('problem' in file ? [{ fileName: file.fileName, reason: file.problem }] : []));
  const isOursAlone = inspected.trust.level === 'trusted';
  const { ownerUid } = inspected;
  return {
    ...nothing,
    directory: path,
    ownerUid,
    isMissing: false,
    isOursAlone,
    registrations,
    odd,
    claims,
    passwords,
    leftOut,
  };
}

/** Whether it is this user's alone, links on the way to it included; undefined where there is none. */
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

type ReadFile = Extract<Awaited<ReturnType<RegistrationReader['read']>>['files'][number], { readonly stats: unknown }>;

function surveyed({ fileName, registration, stats }: ReadFile): Omit<SurveyedRegistration, 'listens'> {
  const { id, hostname: host, port, localPort, cwd } = registration;
  return {
    name: fileName.slice(0, -'.json'.length),
    isMine: Number(stats.uid) === process.geteuid?.(),
    ownerUid: Number(stats.uid),
    version: fileVersion(stats),
    registration: { id, hostname: host, port, localPort, cwd },
  };
}

async function askPorts(files: readonly Omit<SurveyedRegistration, 'listens'>[]): Promise<SurveyedRegistration[]> {
  const limit = pLimit(CONNECTS);
  return Promise.all(
    files.map((file) => limit(async () => ({ ...file, listens: await listenerOn(file.registration.port) }))),
  );
}

async function readClaims(directory: string, names: readonly string[]): Promise<SurveyedClaim[]> {
  const held = names.flatMap((name) => /^\.(.+)\.claim$/s.exec(name)?.[1] ?? []).toSorted();
  const limit = pLimit(CONNECTS);
  const claims = await Promise.all(
    held.slice(0, MAX_REGISTRATIONS).map((name) => limit(() => readClaim(directory, name))),
  );
  return claims.filter((claim) => claim !== undefined);
}

async function listPasswords(folder: string): Promise<RegistrySurvey['passwords']> {
  // A link would lead to another folder's files.
  const isFolder = await lstat(folder).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  const ids = isFolder ? await readdir(folder).catch(() => []) : [];
  const limit = pLimit(CONNECTS);
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
