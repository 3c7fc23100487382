import { spawnSync } from 'node:child_process';

/** For `describe.skipIf`: opencode searches with the `rg` on its PATH, and else downloads one, which nothing here may. Throws in CI. */
export function isRipgrepMissing(): boolean {
  if (spawnSync('rg', ['--version']).status === 0) return false;
  if (process.env['CI'] === 'true') throw new Error('rg is not installed: run scripts/install-system-packages.sh');
  console.warn('Skipped: rg is not installed');
  return true;
}
