import { access, constants, lstat, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { errorCode, messageOf } from '../base/errors.ts';
import { quoteName, shellWord, singleLine } from '../base/plain-text.ts';
import { isRevoked } from '../node/revocation.ts';
import { recordPath } from '../operations/call-record.ts';
import { check, type Check } from './report.ts';

/** More files than this program ever keeps; a wrong folder must not be walked for minutes. */
const MAX_FILES = 5_000;
const MAX_PATH_CHARS = 300;
const OTHERS_WRITE = 0o022;

/** The folder in which the programs write things down, the record of calls, and whether serving is revoked. */
export async function stateChecks(stateDir: string): Promise<readonly Check[]> {
  return [...(await folderChecks(stateDir)), ...revokedChecks(stateDir)];
}

function revokedChecks(stateDir: string): readonly Check[] {
  if (!isRevoked(stateDir)) return [];
  const what = 'node services and dashboards of this user serve nothing, since opencode-mcp node --revoke';
  return [
    check('broken', 'revoked', what, {
      advice: { text: 'let them serve again', command: 'opencode-mcp node --allow' },
    }),
  ];
}

async function folderChecks(stateDir: string): Promise<readonly Check[]> {
  const folder = shown(stateDir);
  const problem = await writeProblem(stateDir);
  if (problem !== undefined) {
    const { at, reason } = problem;
    return [
      check(
        'broken',
        'state folder',
        `cannot write in ${folder}: ${reason}; calls go on, without a record and without request ids that outlast a restart`,
        {
          advice: adviceFor(at, problem.code),
        },
      ),
    ];
  }
  const stats = await stat(stateDir).catch(() => undefined);
  if (stats === undefined) return [check('ok', 'state folder', `${folder}: not made yet; it will be`)];
  const { bytes, files, isAll } = await sizeOf(stateDir);
  const size = `${isAll ? '' : 'more than '}${sizeText(bytes)} in ${files} file${files === 1 ? '' : 's'}`;
  const record = await stat(recordPath(stateDir)).catch(() => undefined);
  return [
    (stats.mode & OTHERS_WRITE) === 0
      ? check('ok', 'state folder', `${folder}, writable, ${size}`)
      : check('warn', 'state folder', `${folder} can be written by other users`, {
          advice: { text: 'close it', command: `chmod go-w ${shellWord(stateDir)}` },
        }),
    check(
      'ok',
      'record',
      record === undefined
        ? 'no call has been recorded yet'
        : `${shown(recordPath(stateDir))}, ${sizeText(record.size)}`,
    ),
  ];
}

interface Problem {
  /** What stands in the way. */
  readonly at: string;
  readonly code: string | undefined;
  readonly reason: string;
}

/** Tried, since modes do not tell it all: a read-only mount, a quota. Nothing is left, and no folder is made. */
async function writeProblem(stateDir: string): Promise<Problem | undefined> {
  let at = stateDir;
  try {
    // What is not there yet will be made in the first folder above that is.
    while (at !== dirname(at) && (await lstat(at).catch(unlessMissing)) === undefined) at = dirname(at);
    const stats = await stat(at);
    if (!stats.isDirectory())
      return { at, code: stats.isFile() ? 'ENOTDIR' : undefined, reason: `${shown(at)} is no folder` };
    if (at !== stateDir) await access(at, constants.W_OK | constants.X_OK);
    else {
      const trial = join(stateDir, `.doctor-${process.pid}`);
      await writeFile(trial, '', { flag: 'wx', mode: 0o600 });
      await rm(trial);
    }
    return undefined;
  } catch (error) {
    const code = errorCode(error);
    return { at, code, reason: `${code ?? messageOf(error)} at ${shown(at)}` };
  }
}

function adviceFor(at: string, code: string | undefined): { readonly text: string; readonly command?: string } {
  const path = shellWord(singleLine(at, MAX_PATH_CHARS));
  if (code === 'ENOTDIR')
    return { text: 'a folder is needed there; move the file away', command: `mv ${path} ${path}.old` };
  if (code === 'EACCES')
    return {
      text: 'make it yours and writable, or set XDG_STATE_HOME to a folder that is',
      command: `chmod u+rwx ${path}`,
    };
  if (code === 'ENOSPC' || code === 'EDQUOT') return { text: 'the disk is full; make room' };
  if (code === undefined) return { text: 'set HOME, or XDG_STATE_HOME, to a folder of yours' };
  return { text: 'mount it writable, or set XDG_STATE_HOME to a folder of yours' };
}

async function sizeOf(
  folder: string,
): Promise<{ readonly bytes: number; readonly files: number; readonly isAll: boolean }> {
  let bytes = 0;
  let files = 0;
  const folders = [folder];
  for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
    for (const entry of await readdir(next, { withFileTypes: true }).catch(() => [])) {
      if (files >= MAX_FILES) return { bytes, files, isAll: false };
      const path = join(next, entry.name);
      if (entry.isDirectory()) folders.push(path);
      else if (entry.isFile()) {
        files += 1;
        bytes += (await lstat(path).catch(() => undefined))?.size ?? 0;
      }
    }
  }
  return { bytes, files, isAll: true };
}

function sizeText(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  return bytes < 1024 * 1024 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

function shown(path: string): string {
  return quoteName(singleLine(path, MAX_PATH_CHARS));
}

/** ENOTDIR: a file stands where a folder above it should be. */
function unlessMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT' && errorCode(error) !== 'ENOTDIR') throw error;
}
