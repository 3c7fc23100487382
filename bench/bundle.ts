import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** The server as it is published, and its source map. */
export const SERVER_SCRIPT = join(ROOT, 'dist', 'opencode-mcp.js');
export const SERVER_MAP = `${SERVER_SCRIPT}.map`;

const PROGRAMS = ['bare-server', 'bare-survey', 'bare-stream', 'fleet'] as const;

export type Scripts = Readonly<Record<(typeof PROGRAMS)[number] | 'server', string>>;

/**
 * Bundles the bench's programs into `folder` with the options of scripts/build.mjs but none of its plugins, and
 * puts a copy of the built server beside them: both sides load one file from one place, and a build meanwhile disturbs nothing.
 */
export async function bundlePrograms(folder: string): Promise<Scripts> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'package.json'), '{"type":"module"}\n');
  await build({
    absWorkingDir: ROOT,
    entryPoints: Object.fromEntries(PROGRAMS.map((name) => [name, `bench/programs/${name}.ts`])),
    outdir: folder,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    minifySyntax: true,
    minifyWhitespace: true,
    keepNames: false,
    legalComments: 'none',
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
  const server = join(folder, 'opencode-mcp.js');
  await copyFile(SERVER_SCRIPT, server);
  const script = (name: string): string => join(folder, `${name}.js`);
  return {
    server,
    'bare-server': script('bare-server'),
    'bare-survey': script('bare-survey'),
    'bare-stream': script('bare-stream'),
    fleet: script('fleet'),
  };
}
