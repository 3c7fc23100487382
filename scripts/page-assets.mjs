// The page's files for the build: minified.
import { readdir, readFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { transform } from 'esbuild';

const FOLDER = join(dirname(dirname(fileURLToPath(import.meta.url))), 'src', 'page', 'assets');

/** Text by file name. */
export async function pageAssets() {
  const names = (await readdir(FOLDER)).toSorted();
  const texts = await Promise.all(names.map(async (name) => small(name, await readFile(join(FOLDER, name), 'utf8'))));
  return Object.fromEntries(names.map((name, at) => [name, texts[at]]));
}

async function small(name, text) {
  if (!['.js', '.css'].includes(extname(name))) return text.replace(/\n\s*/g, '\n');
  const { code } = await transform(text, { loader: extname(name).slice(1), minify: true, charset: 'ascii' });
  return code;
}
