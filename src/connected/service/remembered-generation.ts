import { open, readFile, realpath } from 'node:fs/promises';
import { basename, join, parse } from 'node:path';
import * as z from 'zod';

import { jsonOf } from '../../base/errors.ts';
import { replaceOwnFile } from '../../base/files/own-file.ts';
import { askGeneration, type OpencodeGeneration } from './generation.ts';

const rememberedSchema = z.object({
  /** Identifies the program's file and its content. */
  stamp: z.string(),
  generation: z.object({
    number: z.union([z.literal(1), z.literal(2)]),
    version: z.string().max(100).optional(),
    isPreview: z.literal(true).optional(),
  }),
});

/**
 * As `askGeneration`, which takes a second, but runs the same file only once: the answer for the last program is kept in
 * `<state directory>/generation.json`.
 */
export async function rememberedGeneration(
  program: string,
  { env, stateDir }: { readonly env: Readonly<Record<string, string>>; readonly stateDir: string },
): Promise<OpencodeGeneration> {
  const path = join(stateDir, 'generation.json');
  const stamp = await stampOf(program);
  const known = stamp === undefined ? undefined : await read(path);
  if (known !== undefined && known.stamp === stamp) return known.generation as OpencodeGeneration;
  const generation = await askGeneration(program, env);
  const isCertain = generation.version !== undefined || generation.number === 2;
  // If the answer cannot be stored, only the next start is slower.
  if (stamp !== undefined && isCertain)
    await replaceOwnFile(path, `${JSON.stringify({ stamp, generation })}\n`).catch(() => {});
  return generation;
}

/**
 * Undefined if the same file may run another opencode next time: a script, or the program of a version manager to which
 * `opencode` links.
 */
async function stampOf(program: string): Promise<string | undefined> {
  try {
    const real = await realpath(program);
    if (!basename(real).startsWith(parse(program).name)) return undefined;
    const file = await open(real);
    try {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(2), 0, 2, 0);
      if (bytesRead < 2 || buffer.toString('latin1') === '#!') return undefined;
      const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
      return [real, dev, ino, size, mtimeNs, ctimeNs].join(' ');
    } finally {
      await file.close();
    }
  } catch {
    return undefined;
  }
}

async function read(path: string): Promise<z.infer<typeof rememberedSchema> | undefined> {
  return rememberedSchema.safeParse(jsonOf(await readFile(path, 'utf8').catch(() => ''))).data;
}
