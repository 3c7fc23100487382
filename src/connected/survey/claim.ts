import { lstat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { nodeFileSystem } from '../../discovery/folder/file-system.ts';
import { readSmallFile } from '../../discovery/folder/small-file.ts';
import { isAlive } from '../process-table.ts';
import type { SurveyedClaim } from './registry-survey.ts';

/** Stands for the start time in a claim if the system does not show it to a shell. */
const UNKNOWN_START = '-';
const MAX_LINE_CHARS = 4_096;

export function claimPath(directory: string, name: string): string {
  return join(directory, `.${name}.claim`);
}

/** Reads the claim of `name`, in the form of `relay/claim-script.ts`. Undefined if there is no such file, or not a regular one. */
export async function readClaim(directory: string, name: string): Promise<SurveyedClaim | undefined> {
  const path = claimPath(directory, name);
  const read = await readSmallFile(path, nodeFileSystem);
  if (read === undefined) return undefined;
  if ('problem' in read) return (await isRegular(path)) ? unknownClaim(name) : undefined;
  const [line = ''] = Buffer.from(read.content).toString('utf8').split('\n');
  const [id = '', pidText = '', started = '', host = ''] = line.split(' ');
  const pid = /^\d{1,15}$/.test(pidText) ? Number(pidText) : undefined;
  const isMine = Number(read.stats.uid) === process.geteuid?.();
  const claim = { name, isMine, id, host, line: line.slice(0, MAX_LINE_CHARS), ...(pid !== undefined && { pid }) };
  // A claim of another user proves nothing, nor does one that does not name its holder.
  if (!isMine || id === '' || pid === undefined || host === '') return { ...claim, holder: 'unknown' };
  if (host !== hostname()) return { ...claim, holder: 'elsewhere' };
  const isHeld = await isAlive({ pid, started: started === UNKNOWN_START ? undefined : started });
  return { ...claim, holder: isHeld ? 'alive' : 'dead' };
}

function unknownClaim(name: string): SurveyedClaim {
  return { name, isMine: false, holder: 'unknown', id: '', host: '', line: '' };
}

async function isRegular(path: string): Promise<boolean> {
  return lstat(path).then(
    (stats) => stats.isFile(),
    () => false,
  );
}
