import { mkdir, open, readFile, realpath, rename, writeFile } from 'node:fs/promises';
import { basename, join, parse } from 'node:path';
import * as z from 'zod';

import { jsonOf } from '../../base/errors.ts';
import { askGeneration, type OpencodeGeneration } from './generation.ts';

const rememberedSchema = z.object({
  /** Which file it was, and in which state. */
  stamp: z.string(),
  generation: z.object({
    number: z.union([z.literal(1), z.literal(2)]),
    version: z.string().max(100).optional(),
    isPreview: z.literal(true).optional(),
  }),
});

/**
 * As `askGeneration`, which takes opencode a second, but asks the same file once: the answer for the program of the last start is kept
 * in `<state directory>/generation.json`. Rejects where it does.
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
  // Without it the next start takes longer, and nothing else.
  if (stamp !== undefined && isCertain) await write(path, stateDir, { stamp, generation }).catch(() => {});
  return generation;
}

/**
 * Undefined for what may be another opencode next time although its file is the same: a script, and the program of a version
 * manager to which `opencode` is only a link.
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

async function write(path: string, folder: string, remembered: object): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, `${JSON.stringify(remembered)}\n`, { mode: 0o600 });
  await rename(temporary, path);
}
