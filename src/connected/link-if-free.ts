import { link } from 'node:fs/promises';

import { errorCode } from '../base/errors.ts';

/** Makes `path` another name of the file `existing`, by link(2); false if that name is taken. */
export async function linkIfFree(existing: string, path: string): Promise<boolean> {
  try {
    await link(existing, path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}
