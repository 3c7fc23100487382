import { execFile } from 'node:child_process';
import { cp, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

import { tempDir } from './rig/temp.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..');

/** The package of this name on npm is another project's. */
const FROM_NPM =
  /\b(?:npm\s+(?:i|install|add|exec)|npx|bunx|pnpm\s+(?:add|dlx)|yarn\s+(?:add|dlx))\b[^`\n]*?[\s"']opencode-mcp\b/;

test('nothing sends a person to the package of this name on npm', async () => {
  const files = await texts(['README.md', 'AGENTS.md', 'CHANGELOG.md', 'docs', 'scripts', 'src', 'systemd']);
  expect(files.size).toBeGreaterThan(200);
  expect([...files].filter(([, text]) => FROM_NPM.test(text)).map(([file]) => file)).toEqual([]);
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { readonly private?: boolean };
  expect(manifest.private).toBe(true);
});

test('`npm install --global .` of a built checkout puts both commands on the PATH', async () => {
  await using stage = tempDir();
  const checkout = join(stage.path, 'checkout');
  const prefix = join(stage.path, 'prefix');
  await Promise.all(
    ['package.json', 'dist'].map((name) => cp(join(root, name), join(checkout, name), { recursive: true })),
  );
  // The build is `prepare`'s, of `npm ci`; this test uses the one that is there.
  const install = [
    'install',
    '--global',
    '--prefix',
    prefix,
    '--offline',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
  ];
  await run('npm', [...install, '.'], { cwd: checkout });
  const version = await run(join(prefix, 'bin/opencode-mcp'), ['--version']);
  expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  const help = await run(join(prefix, 'bin/opencode-connected'), ['--help']);
  expect(help.stdout).toMatch(/^opencode-connected \d+\.\d+\.\d+ starts opencode/);
});

/** Every text below these paths of the project, by path; those that are not there are left out. */
async function texts(paths: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const visit = async (path: string): Promise<void> => {
    const entries = await readdir(join(root, path), { withFileTypes: true }).catch(() => undefined);
    if (entries !== undefined) await Promise.all(entries.map((entry) => visit(join(path, entry.name))));
    else {
      const text = await readFile(join(root, path), 'utf8').catch(() => undefined);
      if (text !== undefined) found.set(path, text);
    }
  };
  await Promise.all(paths.map(visit));
  return found;
}
