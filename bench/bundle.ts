import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** The server as it is published. */
export const BUILT_SERVER = join(ROOT, 'dist', 'opencode-mcp.js');

const PROGRAMS = {
  'bare-server': import.meta.resolve('./programs/bare-server.ts'),
  'bare-survey': import.meta.resolve('./programs/bare-survey.ts'),
  'bare-stream': import.meta.resolve('./programs/bare-stream.ts'),
  'lan-crowd': import.meta.resolve('./programs/lan-crowd.ts'),
  fleet: import.meta.resolve('./programs/fleet.ts'),
  streamer: import.meta.resolve('./programs/streamer.ts'),
  tailscaled: import.meta.resolve('./programs/tailscaled.ts'),
} as const;

/** Paths of the programs; `serve` is the serving part of the server. */
export type Scripts = Readonly<Record<keyof typeof PROGRAMS | 'server' | 'serve', string>>;

/**
 * Bundles the bench's programs into `folder` with the options of scripts/build.mjs but without its plugins, and copies the built
 * server and its source maps there: both sides load from one place, and a concurrent build disturbs nothing.
 */
export async function bundlePrograms(folder: string, builtServer: string): Promise<Scripts> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'package.json'), '{"type":"module"}\n');
  await build({
    absWorkingDir: ROOT,
    entryPoints: Object.fromEntries(Object.entries(PROGRAMS).map(([name, url]) => [name, fileURLToPath(url)])),
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
  // An older build is one file.
  const built = (await readdir(dirname(builtServer))).filter((name) => /^opencode-mcp\b.*\.js(?:\.map)?$/.test(name));
  for (const name of built) await copyFile(join(dirname(builtServer), name), join(folder, name));
  const script = (name: string): string => join(folder, `${name}.js`);
  const programs = Object.keys(PROGRAMS).map((name): [string, string] => [name, script(name)]);
  return {
    ...(Object.fromEntries(programs) as Record<keyof typeof PROGRAMS, string>),
    server,
    serve: built.includes('opencode-mcp-serve.js') ? script('opencode-mcp-serve') : server,
  };
}
