import { spawnSync } from 'node:child_process';
import type { TestContext } from 'vitest';

export const SYSTEM_PACKAGES = 'CI=true scripts/install-system-packages.sh, as root';

/** Skips a test if there is a reason, and reports it. In CI, where nothing may be missing, that is a failure. */
export function skipFor({ skip }: Pick<TestContext, 'skip'>, reason: string | undefined): void {
  if (reason === undefined) return;
  failInCi(reason);
  skip(true, reason);
}

/** Does the same for a suite: `describe.skipIf(isSkipped(reason))`. */
export function isSkipped(reason: string | undefined): boolean {
  if (reason === undefined) return false;
  failInCi(reason);
  process.stderr.write(`Skipped: ${reason}\n`);
  return true;
}

/** The reason to skip if this program is not installed. */
export function missingProgram(program: string, versionFlag = '--version'): string | undefined {
  return spawnSync(program, [versionFlag]).status === 0 ? undefined : `needs ${program}: ${SYSTEM_PACKAGES}`;
}

function failInCi(reason: string): void {
  if (process.env['CI'] === 'true') throw new Error(`Expected every component, because CI=true; ${reason}`);
}
