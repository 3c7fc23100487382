// Builds dist/: one self-contained file per program; `opencode-mcp` is two, and an entry that picks one.
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { build } from 'esbuild';

import { pageAssets } from './page-assets.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, 'dist');
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));

/**
 * The MCP SDK constructs a JSON schema validator for elicitation results, which nothing here uses: Ajv would be a fifth of the
 * start-up time. Using it throws.
 */
const withoutAjv = {
  name: 'without-ajv',
  setup(esbuild) {
    esbuild.onLoad({ filter: /@modelcontextprotocol\/sdk\/.*\/validation\/ajv-provider\.js$/ }, () => ({
      contents: `export class AjvJsonSchemaValidator {
        getValidator() { throw new Error('this build has no JSON schema validator'); }
      }`,
    }));
  },
};

/** opencode's SDK makes a client that we do not use when it is loaded, and with it loads Node's `fetch`: an eighth of a first listing. */
const withoutDefaultClient = {
  name: 'without-default-client',
  setup(esbuild) {
    esbuild.onLoad({ filter: /@opencode-ai\/sdk\/dist\/v2\/gen\/client\.gen\.js$/ }, () => ({
      contents: 'export const client = undefined;',
    }));
  },
};

/**
 * Loads each builtin of Node with the first module that uses it. A single ES module would import all of them before its first line:
 * a third of the start-up time of a server that only lists its tools.
 */
const lazyBuiltins = {
  name: 'lazy-builtins',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^(?:node:)?[a-z_]+(?:\/[a-z]+)?$/ }, ({ path, importer }) => {
      const name = path.replace(/^node:/, '');
      if (importer === '' || !builtinModules.includes(name)) return undefined;
      return { path: name, namespace: 'builtin', sideEffects: false };
    });
    esbuild.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule('node:${path}');`,
    }));
  },
};

/** The entry loads one of two files beside it. */
const filesBeside = {
  name: 'files-beside',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^\.\/(?:serve|command)\.ts$/ }, ({ path, importer }) =>
      importer.endsWith('main.ts')
        ? { path: path.replace('./', './opencode-mcp-').replace('.ts', '.js'), external: true }
        : undefined,
    );
  },
};

/** The entries of tools/list, computed by the program's own code. */
async function readyTools() {
  const folder = await mkdtemp(join(tmpdir(), 'opencode-mcp-build-'));
  try {
    const outfile = join(folder, 'listed-tools.mjs');
    await build({
      absWorkingDir: root,
      entryPoints: ['src/mcp/tools/listed-tools.ts'],
      outfile,
      bundle: true,
      format: 'esm',
      platform: 'node',
      logLevel: 'warning',
    });
    const { makeReadyTools } = await import(pathToFileURL(outfile).href);
    return await makeReadyTools();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const ready = JSON.stringify(await readyTools());
const assets = JSON.stringify(await pageAssets());
await rm(dist, { recursive: true, force: true });
const common = {
  absWorkingDir: root,
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  minifySyntax: true,
  minifyWhitespace: true,
  sourcemap: 'external',
  legalComments: 'none',
  metafile: true,
  define: { __OPENCODE_MCP_VERSION__: JSON.stringify(version), __READY_TOOLS__: ready, __PAGE_ASSETS__: assets },
  banner: {
    js: "#!/usr/bin/env node\nimport { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  plugins: [withoutAjv, withoutDefaultClient, lazyBuiltins, filesBeside],
  // Its UMD form loads its parts by a `require` that bundlers do not see.
  alias: { 'jsonc-parser': 'jsonc-parser/lib/esm/main.js' },
  logLevel: 'warning',
};
const entries = {
  'opencode-mcp': 'src/main.ts',
  'opencode-mcp-serve': 'src/serve.ts',
  'opencode-mcp-command': 'src/command.ts',
  'opencode-connected': 'src/connected.ts',
};
const results = await Promise.all(
  Object.entries(entries).map(([name, entry]) => build({ ...common, entryPoints: { [name]: entry } })),
);

const inputs = results.flatMap(({ metafile }) => Object.keys(metafile.inputs));
await writeFile(join(dist, 'THIRD-PARTY-LICENSES.txt'), await licences(inputs));
await Promise.all(Object.keys(entries).map((program) => finish(join(dist, `${program}.js`))));

/**
 * V8 stores a source with any character beyond Latin-1 in two bytes per character, which costs a server 4 MB. esbuild escapes them
 * in strings but not in regular expressions.
 */
async function finish(program) {
  const wide = /.{0,40}[\u0100-\uffff].{0,20}/.exec(await readFile(program, 'utf8'));
  if (wide !== null) throw new Error(`write the character beyond Latin-1 as \\u…: ${wide[0]}`);
  await chmod(program, 0o755);
}

/** The licence of every bundled package. */
async function licences(inputs) {
  const folders = new Set();
  for (const input of inputs) {
    const folder = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (folder !== undefined) folders.add(folder);
  }
  const texts = [];
  for (const folder of [...folders].sort((a, b) => a.localeCompare(b))) {
    const { name, version, license } = JSON.parse(await readFile(join(root, folder, 'package.json'), 'utf8'));
    const text = await firstFile(
      ['LICENSE', 'LICENSE.md', 'license', 'LICENCE', 'LICENSE.txt'].map((file) => join(root, folder, file)),
    );
    texts.push(`${name} ${version} (${license})\n\n${(text ?? 'No licence file in the package.').trim()}\n`);
  }
  return texts.join(`\n${'-'.repeat(72)}\n\n`);
}

async function firstFile(paths) {
  for (const path of paths) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text !== undefined) return text;
  }
  return undefined;
}
