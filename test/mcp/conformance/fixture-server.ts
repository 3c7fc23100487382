import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const FIXTURES = fileURLToPath(new URL('./fixture-tools.ts', import.meta.url));

/** Builds the server, with the fixture tools in place of its own, into `folder`; returns the path of the bundle. */
export async function buildFixtureServer(folder: string): Promise<string> {
  const outfile = join(folder, 'fixture-server.mjs');
  await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/main.ts'],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    logLevel: 'warning',
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    alias: { 'jsonc-parser': 'jsonc-parser/lib/esm/main.js' },
    plugins: [
      {
        name: 'fixture-tools',
        setup: ({ onResolve }) =>
          onResolve({ filter: /\/tools\.ts$/ }, ({ importer }) =>
            importer.includes('/src/mcp/') ? { path: FIXTURES } : undefined,
          ),
      },
    ],
  });
  return outfile;
}
