import { hostname } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';

import { jsonOf } from '../../base/errors.ts';
import { replaceOwnFile } from '../../base/files/own-file.ts';
import { silentLogger } from '../../base/log.ts';
import { readTextFile } from '../../config/file/text-file.ts';
import { hasUnsafeCharacters } from '../../config/quote.ts';
import type { Settings } from '../../config/settings.ts';
import { createRegistrySource, registryOptionsOf } from '../../discovery/registry/registry.ts';
import type { Snapshot } from '../../model/instance.ts';

const namesSchema = z.array(z.string());

const MAX_NAMES = 1_000;
/** For a registry on a hanging disk: people do not wait longer after Tab. */
const REGISTRY_LIMIT_MS = 500;

function namesPath(stateDir: string): string {
  return join(stateDir, 'names.json');
}

/** Saves the names of the listed instances for `knownNames`, once every source has reported. Never rejects. */
export async function rememberNames(stateDir: string, { instances, sources }: Snapshot): Promise<void> {
  if (sources.some(({ status }) => status === 'pending')) return;
  const path = namesPath(stateDir);
  const text = `${JSON.stringify(instances.slice(0, MAX_NAMES).map(({ name }) => name))}\n`;
  if (textOf(path) !== text) await replaceOwnFile(path, text).catch(() => {});
}

/**
 * Names to complete, sorted: those of the last listing, and those registered on this machine now; no instance is asked. Leaves out
 * names that cannot be typed or would be read as options.
 */
export async function knownNames(settings: Pick<Settings, 'registryDir' | 'stateDir'>): Promise<readonly string[]> {
  const names = [...new Set([...listedNames(settings.stateDir), ...(await registeredNames(settings))])];
  return names.filter((name) => name !== '' && !name.startsWith('-') && !hasUnsafeCharacters(name)).toSorted();
}

function listedNames(stateDir: string): readonly string[] {
  return namesSchema.safeParse(jsonOf(textOf(namesPath(stateDir)))).data ?? [];
}

/** Empty if it cannot be read. Does not wait for a named pipe in its place. */
function textOf(path: string): string {
  try {
    return readTextFile(path).text;
  } catch {
    return '';
  }
}

async function registeredNames(settings: Pick<Settings, 'registryDir' | 'stateDir'>): Promise<readonly string[]> {
  const dependencies = { logger: silentLogger, uid: process.geteuid?.(), hostname: hostname() };
  const source = createRegistrySource(registryOptionsOf(settings), dependencies);
  try {
    const { candidates } = await source.scan(AbortSignal.timeout(REGISTRY_LIMIT_MS));
    return candidates.flatMap(({ claims, trust }) => (trust.level === 'trusted' ? (claims.name ?? []) : []));
  } catch {
    return [];
  } finally {
    await source.close();
  }
}
