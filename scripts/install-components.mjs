// Installs the programs that the suites and the demo drive, each set in its own folder of test/:
//   opencodes    the oldest and the newest supported opencode 1, the preview of opencode 2
//   components   the newest Node LTS, the MCP Inspector, a gateway, the conformance suite, MCP clients (Claude Code, Codex, Gemini CLI)
// Arguments name sets; default: all. A set is installed again only if its package files change.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const tests = join(dirname(dirname(fileURLToPath(import.meta.url))), 'test');
const SETS = { opencodes: ['install'], components: ['ci'] };

for (const name of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(SETS)) install(name);

function install(name) {
  const folder = join(tests, name);
  const stamp = join(folder, 'node_modules', '.installed');
  const wanted = ['package.json', 'package-lock.json']
    .map((file) => join(folder, file))
    .filter((path) => existsSync(path))
    .map((path) => readFileSync(path, 'utf8'))
    .join('\n');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  process.stdout.write(`Installing the packages of test/${name} (once) …\n`);
  const quiet = ['--no-fund', '--no-audit', '--loglevel=error'];
  const { status } = spawnSync('npm', [...SETS[name], ...quiet], { cwd: folder, stdio: 'inherit' });
  if (status === 0) {
    writeFileSync(stamp, wanted);
    return;
  }
  // Only in CI a missing component is a failure.
  process.stderr.write(`Cannot install test/${name}; suites that need it are skipped.\n`);
  if (process.env.CI === 'true') process.exit(1);
}
