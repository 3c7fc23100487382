import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Stage } from './stage.ts';

export interface LoadedModules {
  /** Modules of the bundle that ran before the answer to tools/list, by path from the project's root. */
  readonly bundled: readonly string[];
  /** Modules of Node itself loaded by then. */
  readonly node: readonly string[];
}

/**
 * Preloaded into the built server: writes to a file which modules have run when the answer to tools/list goes out. esbuild turns
 * every module that may load later into a function named by its path, passed to its helper `__esm` or `__commonJS`.
 */
const REPORTER = (file: string): string => `
const __ran = [];
const __named = (helper, modules) => {
  const [name] = Object.keys(modules);
  const run = modules[name];
  return helper({ [name]: (...args) => (__ran.push(name), run(...args)) });
};
const __write = process.stdout.write.bind(process.stdout);
process.stdout.write = (chunk, ...rest) => {
  if (String(chunk).includes('"tools":[')) {
    const node = process.moduleLoadList.filter((name) => name.startsWith('NativeModule ')).map((name) => name.slice(13));
    process.getBuiltinModule('node:fs').writeFileSync(${JSON.stringify(file)}, JSON.stringify({ ran: __ran, node }));
  }
  return __write(chunk, ...rest);
};
`;

const IN_PACKAGE_TS = /(?:^|\/)node_modules\/.*\.ts$/;

/** What the built server loads until it has answered tools/list. Equal for every run of one build on one Node. */
export async function loadedModules(stage: Stage): Promise<LoadedModules> {
  const report = join(stage.folder, 'modules.json');
  const built = await readFile(stage.scripts.serve, 'utf8');
  const later = [...built.matchAll(/__(?:esm|commonJS)\(\{(?:async)?"([^"]+)"\(/g)].map(([, name = '']) => name);
  const script = join(dirname(stage.scripts.serve), 'reporting.js');
  await writeFile(script, instrument(built, REPORTER(report)));
  {
    await using server = stage.spawnServer({ script });
    await server.initialize();
    await server.listTools();
  }
  const { ran, node } = JSON.parse(await readFile(report, 'utf8')) as {
    readonly ran: string[];
    readonly node: string[];
  };
  const { sources } = JSON.parse(await readFile(`${stage.scripts.serve}.map`, 'utf8')) as {
    readonly sources: readonly string[];
  };
  // Packages with source maps of their own appear as their original sources, which esbuild has not seen.
  const all = sources.map((source) => source.replace(/^\.\.\//, '')).filter((name) => !IN_PACKAGE_TS.test(name));
  const strange = later.find((name) => name.startsWith('src/') && !all.includes(name));
  if (strange !== undefined) throw new Error(`Expected ${strange} among the sources of the source map, got none such`);
  const atOnce = all.filter((name) => !later.includes(name));
  // The build wraps each builtin of Node; those are not ours.
  return { bundled: [...atOnce, ...ran.filter((name) => !name.startsWith('builtin:'))], node };
}

function instrument(built: string, reporter: string): string {
  let found = 0;
  const counting = built.replaceAll(/\b(var |,)__(esm|commonJS)=/g, (_, before: string, helper: string) => {
    found += 1;
    return `${before}__${helper}=(modules)=>__named(__${helper}0,modules),__${helper}0=`;
  });
  if (found === 0) throw new Error("Expected esbuild's helper __esm or __commonJS in the built server, got neither");
  const head = counting.startsWith('#!') ? counting.indexOf('\n') + 1 : 0;
  return `${reporter}${counting.slice(head)}`;
}
