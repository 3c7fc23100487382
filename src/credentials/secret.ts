import { shellWord } from '../base/plain-text.ts';
import { constants } from 'node:fs';
import { lstat, open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { shownPath } from '../config/quote.ts';
import type { SecretRef } from '../config/file/secret-ref.ts';
import type { SecretCommands } from './secret-commands.ts';
import { unlessAborted } from '../base/unless-aborted.ts';
import { errorCode, octalMode, runAs } from '../base/errors.ts';

// The limit of a header's value; a password is a line.
const MAX_SECRET_BYTES = 8192;

export interface SecretDeps {
  readonly commands: SecretCommands;
}

/**
 * Reads the secret, or undefined if an optional file is missing. Rejects with cause and advice, without any part of the content,
 * or with the reason of `signal`.
 */
export async function readSecret(ref: SecretRef, deps: SecretDeps, signal: AbortSignal): Promise<string | undefined> {
  const secret = await readRef(ref, deps, signal);
  signal.throwIfAborted();
  if (secret === '') throw new Error(`${describe(ref)} is empty; expected a password`);
  return secret;
}

function readRef(ref: SecretRef, deps: SecretDeps, signal: AbortSignal): Promise<string | undefined> {
  if (ref.kind === 'value') return Promise.resolve(ref.value);
  if (ref.kind === 'unset')
    return Promise.reject(new Error(`${describe(ref)} is not set; set it and start this again`));
  if (ref.kind === 'command') return deps.commands.run(ref.argv, signal).then(withoutFinalNewline);
  // A file system that hangs must not block the caller.
  return unlessAborted(readSecretFile(ref), signal);
}

/** The origin of a secret, for people. */
export function originOf(ref: SecretRef): string {
  return ref.kind === 'value' ? 'the configuration' : describe(ref);
}

/** Names a secret in errors. Arguments of a command may be secrets, so only the program is named. */
function describe(ref: SecretRef): string {
  if (ref.kind === 'value') return 'the configured password';
  if (ref.kind === 'unset') return `the environment variable ${ref.variable}`;
  return ref.kind === 'command'
    ? `the output of the password command ${shownPath(ref.argv[0])}`
    : `the password file ${shownPath(ref.path)}`;
}

async function readSecretFile(ref: Extract<SecretRef, { kind: 'file' }>): Promise<string | undefined> {
  const { path, ownerUid } = ref;
  let file: FileHandle;
  try {
    if (ownerUid !== undefined) await checkFolder(dirname(path), ownerUid);
    // NONBLOCK: never wait for the writer of a named pipe. A configured file may be a symbolic link (mounted secrets are), but
    // not one whose owner is checked: the link could lead out of the checked folder.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | (ownerUid === undefined ? 0 : constants.O_NOFOLLOW);
    file = await open(path, flags);
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    if (code === 'ENOENT' && ref.optional) return undefined;
    const folder =
      code === 'EACCES' && isAnothers(ownerUid) ? await lstat(dirname(path)).catch(() => undefined) : undefined;
    const reason = folder === undefined ? (OPEN_FAILURES.get(code) ?? code) : `it is another user's; ${runAs(folder)}`;
    throw new Error(`cannot read the password file ${shownPath(path)}: ${reason}`, { cause: error });
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw refusal(path, 'it is not a regular file; put the password into one');
    if (ownerUid !== undefined) checkClosed(path, stats, ownerUid, '600');
    return withoutFinalNewline((await readBounded(file, path)).toString('utf8'));
  } finally {
    await file.close();
  }
}

async function checkFolder(folder: string, ownerUid: number): Promise<void> {
  const stats = await lstat(folder);
  if (!stats.isDirectory()) throw refusal(folder, 'it is not a folder; a password file lies in a folder of its own');
  checkClosed(folder, stats, ownerUid, '700');
}

function checkClosed(
  path: string,
  stats: { readonly uid: number; readonly gid: number; readonly mode: number },
  ownerUid: number,
  wanted: string,
): void {
  if (stats.uid !== ownerUid) throw refusal(path, `it belongs to user id ${stats.uid}, not ${ownerUid}; remove it`);
  if ((stats.mode & 0o077) === 0) return;
  const mode = octalMode(stats.mode & 0o777);
  const first = isAnothers(ownerUid) ? `${runAs(stats)}; besides, ` : '';
  throw refusal(
    path,
    `${first}other users have access to it (mode ${mode}); run: chmod ${wanted} ${shellWord(shownPath(path))}`,
  );
}

/** Whether the files belong to another user and this process cannot read them; root can read everything. */
function isAnothers(ownerUid: number | undefined): boolean {
  const uid = process.geteuid?.();
  return ownerUid !== undefined && uid !== ownerUid && uid !== 0;
}

async function readBounded(file: FileHandle, path: string): Promise<Buffer> {
  const bytes = Buffer.alloc(MAX_SECRET_BYTES + 1);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, null);
    if (bytesRead === 0) return bytes.subarray(0, length);
    length += bytesRead;
  }
  throw refusal(path, `it is larger than ${MAX_SECRET_BYTES} bytes; put only the password into it`);
}

function refusal(path: string, reason: string): Error {
  return new Error(`will not use ${shownPath(path)} for a password: ${reason}`);
}

const OPEN_FAILURES = new Map([
  ['ENOENT', 'no such file; create it with the password in it'],
  ['EACCES', 'permission denied; let the user of this program read it'],
  ['ELOOP', 'it is a symbolic link; put the file itself there'],
  // A named pipe or a socket.
  ['ENXIO', 'it is not a regular file; put the password into one'],
]);

function withoutFinalNewline(text: string): string {
  return text.replace(/\r?\n$/, '');
}
