import { access, constants, lstat, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { errorCode, messageOf } from '../base/errors.ts';
import { shellWord } from '../base/plain-text.ts';
import { isRevoked } from '../node/revocation.ts';
import { recordPath } from '../operations/call-record.ts';
import { unlessMissing } from '../setup/config-file.ts';
import { type Advice, check, type Check, pathName } from './report.ts';

/** More than this program ever has; counting the files of a wrong folder could take minutes. */
const MAX_FILES = 5_000;
const OTHERS_WRITE = 0o022;

/** Checks the state folder, the record of calls, and whether serving is revoked. */
export async function stateChecks(stateDir: string): Promise<readonly Check[]> {
  return [...(await folderChecks(stateDir)), ...revokedChecks(stateDir)];
}

function revokedChecks(stateDir: string): readonly Check[] {
  if (!isRevoked(stateDir)) return [];
  const what = 'node services and dashboards of this user serve nothing, because of opencode-mcp node --revoke';
  return [
    check('broken', 'revoked', what, {
      advice: { text: 'serve again', command: 'opencode-mcp node --allow' },
    }),
  ];
}

async function folderChecks(stateDir: string): Promise<readonly Check[]> {
  const folder = pathName(stateDir);
  const problem = await writeProblem(stateDir);
  if (problem !== undefined) {
    const { at, reason } = problem;
    return [
      check(
        'broken',
        'state folder',
        `cannot write in ${folder}: ${reason}; calls work, but are not recorded, and request ids are lost at a restart`,
        { advice: adviceFor(at, problem.code) },
      ),
    ];
  }
  const stats = await stat(stateDir).catch(() => undefined);
  if (stats === undefined) return [check('ok', 'state folder', `${folder}: not created yet`)];
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
        : `${pathName(recordPath(stateDir))}, ${sizeText(record.size)}`,
    ),
  ];
}

interface Problem {
  /** The path that causes it. */
  readonly at: string;
  readonly code: string | undefined;
  readonly reason: string;
}

/** Writes a file and removes it: modes do not show a read-only mount or a quota. Creates no folder. */
async function writeProblem(stateDir: string): Promise<Problem | undefined> {
  let at = stateDir;
  try {
    // A missing folder will be created in the nearest existing folder above it.
    while (at !== dirname(at) && (await lstat(at).catch(unlessMissing)) === undefined) at = dirname(at);
    const stats = await stat(at);
    if (!stats.isDirectory())
      return { at, code: stats.isFile() ? 'ENOTDIR' : undefined, reason: `${pathName(at)} is no folder` };
    if (at !== stateDir) await access(at, constants.W_OK | constants.X_OK);
    else {
      const trial = join(stateDir, `.doctor-${process.pid}`);
      await writeFile(trial, '', { flag: 'wx', mode: 0o600 });
      await rm(trial);
    }
    return undefined;
  } catch (error) {
    const code = errorCode(error);
    return { at, code, reason: `${code ?? messageOf(error)} at ${pathName(at)}` };
  }
}

function adviceFor(at: string, code: string | undefined): Advice {
  const path = shellWord(at);
  if (code === 'ENOTDIR') return { text: 'it must be a folder; move the file away', command: `mv ${path} ${path}.old` };
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
