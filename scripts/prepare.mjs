// npm's `prepare`: builds dist/, even in a checkout without node_modules.
//
// `npm install --global <git URL>` (npm 10 and 11) clones into its cache and runs `npm install` there with its own `--global`: the
// build's dependencies are not installed, and npm links the clone, which it deletes afterwards, as the package.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { npm_config_global: isGlobal, npm_config_location: _, npm_config_prefix: __, ...env } = process.env;

function npm(...args) {
  const { status } = spawnSync('npm', args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync(join(root, 'node_modules', 'esbuild')))
  npm('ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund');
npm('run', '--silent', 'build');

const { npm_config_cache: cache, npm_config_global_prefix: prefix } = env;
if (isGlobal === 'true' && cache && prefix && root.startsWith(join(realpathSync(cache), '_cacache', 'tmp'))) {
  const link = join(prefix, 'lib', 'node_modules', 'opencode-mcp');
  // npm created a folder of that name before and unpacks the built package into it next.
  if (existsSync(link) && realpathSync(link) === root) {
    rmSync(link);
    mkdirSync(link);
  }
}
