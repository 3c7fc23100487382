import { lstat, readdir, rename, rm, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { errorCode } from '../../base/errors.ts';
import { linkIfFree } from '../../base/files/own-file.ts';
import { nodeFileSystem } from '../../discovery/folder/file-system.ts';
import { readSmallFile } from '../../discovery/folder/small-file.ts';
import { identifyProcess } from '../process-table.ts';
import { listenerOn } from '../start/port.ts';
import { claimPath, readClaim } from './claim.ts';
import type { Removal, RemovalOrder } from './registry-survey.ts';
import { fileVersion, inspect, OLD_PASSWORD_MS } from './take-survey.ts';

/** Taking a name takes milliseconds, so a lock that stays for two seconds belongs to a process that died holding it. */
const LOCK_STEP_MS = 100;
const STALE_LOCK_STEPS = 20;
const MAX_LOCK_STEPS = 60;

type RegistrationOrder = Extract<RemovalOrder, { readonly kind: 'registration' }>;
type PasswordOrder = Extract<RemovalOrder, { readonly kind: 'password' }>;

/** Its message is the reason why something is not removed. */
class Kept extends Error {}

/**
 * Carries out an order in the registry `directory`, if its subject has not changed since the survey and is dead. Locks the name
 * meanwhile, as `claim-script.ts` does. Never rejects.
 */
export async function removeFromRegistry(directory: string, order: RemovalOrder): Promise<Removal> {
  try {
    const inspected = await inspect(directory);
    if (inspected === undefined) throw new Kept('there is no registry directory');
    if (inspected.trust.level !== 'trusted')
      throw new Kept('others can write in the registry directory, or it is not of this user');
    if (order.kind === 'registration') await removeRegistration(inspected.path, order);
    else await forgetPassword(inspected.path, order);
    return { removed: true };
  } catch (error) {
    if (error instanceof Kept) return { removed: false, reason: error.message };
    const code = errorCode(error);
    const isReadOnly = code === 'EROFS' || code === 'EACCES' || code === 'EPERM';
    const reason = isReadOnly ? 'the registry directory cannot be written' : 'it cannot be removed';
    return { removed: false, reason: `${reason}: ${code ?? String(error)}` };
  }
}

async function removeRegistration(directory: string, order: RegistrationOrder): Promise<void> {
  if (!/^[^./\n][^/\n]*$/.test(order.name)) throw new Kept('its name is not a valid file name');
  const mark = join(directory, `.cleanup.${process.pid}.tmp`);
  const { started = '-' } = (await identifyProcess(process.pid)) ?? {};
  await unlinkIfThere(mark);
  await writeFile(mark, `cleanup ${process.pid} ${started} ${hostname()}\n`, { mode: 0o600, flag: 'wx' });
  const lock = join(directory, `.${order.name}.lock`);
  try {
    await takeLock(lock, mark);
    try {
      await removeLocked(directory, order, mark);
    } finally {
      await unlinkIfThere(lock);
    }
  } finally {
    await unlinkIfThere(mark);
  }
}

async function takeLock(lock: string, mark: string): Promise<void> {
  for (let step = 1; !(await linkIfFree(mark, lock)); step += 1) {
    if (step >= MAX_LOCK_STEPS) throw new Kept('its name stays locked');
    if (step >= STALE_LOCK_STEPS) await unlinkIfThere(lock);
    await delay(LOCK_STEP_MS);
  }
}

async function removeLocked(directory: string, order: RegistrationOrder, mark: string): Promise<void> {
  const path = claimPath(directory, order.name);
  if (order.claim === '') {
    // Holds the name during the removal, so that no instance takes it.
    if (!(await linkIfFree(mark, path))) throw new Kept('it has been claimed since');
    try {
      await removeFile(directory, order, mark);
    } finally {
      await unlinkIfThere(path);
    }
    return;
  }
  const claim = await readClaim(directory, order.name);
  if (claim?.line !== order.claim) throw new Kept('its claim has changed');
  if (claim.holder !== 'dead') throw new Kept('its claim is held');
  await removeFile(directory, order, mark);
  await unlinkIfThere(path);
}

async function removeFile(directory: string, order: RegistrationOrder, mark: string): Promise<void> {
  const path = join(directory, `${order.name}.json`);
  if (!(await isThere(path))) return;
  if (!(await isUnchanged(path, order.version))) throw new Kept('it has been written since');
  if (order.port === undefined || (await listenerOn(order.port)) !== 'none')
    throw new Kept('something listens on its port again');
  const aside = `${mark}.old`;
  await rename(path, aside);
  if (await isUnchanged(aside, order.version)) return unlink(aside);
  // A program that takes no lock has written it just now: put it back, unless there is a newer one.
  await linkIfFree(aside, path);
  await unlink(aside);
  throw new Kept('it has been written since');
}

async function isUnchanged(path: string, version: string | undefined): Promise<boolean> {
  const stats = await lstat(path, { bigint: true });
  return stats.isFile() && Number(stats.uid) === process.geteuid?.() && fileVersion(stats) === version;
}

async function forgetPassword(directory: string, { id, age }: PasswordOrder): Promise<void> {
  const folder = join(directory, '.credentials');
  const isFolder = await lstat(folder).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (!isFolder) throw new Kept('the password folder is missing');
  const path = join(folder, id);
  if (!(await isThere(path))) return;
  const stats = await lstat(path);
  if (!stats.isFile() || stats.uid !== process.geteuid?.()) throw new Kept('it is not a file of this user');
  const names = await readdir(directory);
  for (const name of names) {
    const held = /^\.(.+)\.claim$/s.exec(name)?.[1];
    const claim = held === undefined ? undefined : await readClaim(directory, held);
    if (claim?.id === id && claim.holder !== 'dead') throw new Kept('an instance with its id is claimed');
    if (name.endsWith('.json') && (await mentions(join(directory, name), id)))
      throw new Kept('there is a registration with its id');
  }
  if (age === 'old' && Date.now() - stats.mtimeMs <= OLD_PASSWORD_MS) throw new Kept('it is younger than an hour');
  await unlink(path);
}

/** Whether a registration has the id, even a damaged one. */
async function mentions(path: string, id: string): Promise<boolean> {
  const read = await readSmallFile(path, nodeFileSystem);
  if (read === undefined || 'problem' in read) return false;
  return new RegExp(`"id"\\s*:\\s*"${id}"`).test(Buffer.from(read.content).toString('latin1'));
}

const unlinkIfThere = (path: string): Promise<void> => rm(path, { force: true });

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: unknown) => {
      if (errorCode(error) === 'ENOENT') return false;
      throw error;
    },
  );
}
