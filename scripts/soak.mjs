// npm run soak -- --minutes N --seed S: sends through proxies that break at random, for N minutes (default 10), alongside turns of
// more than three minutes. The seed of a failed run repeats it.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const LONG_TURN = 'test/real/long-turn.test.ts';
const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' } } });
for (const [name, value] of Object.entries(values)) {
  if (!/^\d{1,6}$/.test(value) || (name === 'minutes' && value === '0')) {
    process.stderr.write(`--${name}: expected a whole number${name === 'minutes' ? ' from 1 on' : ''}, got ${value}\n`);
    process.exit(2);
  }
}
await import('./build.mjs');
const install = [join(root, 'scripts', 'install-components.mjs'), 'opencodes'];
if (spawnSync(process.execPath, install, { stdio: 'inherit' }).status !== 0) process.exit(1);
const { status } = spawnSync(
  process.execPath,
  [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', 'test/soak', LONG_TURN, '--disable-console-intercept'],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      LONG_TURN_SECONDS: '195',
      SOAK_MINUTES: values.minutes,
      ...(values.seed && { SOAK_SEED: values.seed }),
    },
  },
);
process.exitCode = status ?? 1;
