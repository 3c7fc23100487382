// npm's `prepare`: builds dist/. `npm install --global <git URL>` runs it in a clone without node_modules, since npm (10 and 11)
// hands `--global` on to the install that is to bring them: they are installed here then.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function npm(...args) {
  // In that case, these mean the install around this one.
  const { npm_config_global: _, npm_config_location: __, npm_config_prefix: ___, ...env } = process.env;
  const { status } = spawnSync('npm', args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync(join(root, 'node_modules', 'esbuild')))
  npm('ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund');
npm('run', '--silent', 'build');
