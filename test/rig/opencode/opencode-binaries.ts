import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { isSkipped } from '../needed.ts';

/** The newest supported version, which the tests call "opencode". */
export const PINNED_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/opencode-pinned/bin/opencode.exe', import.meta.url),
);

/** The oldest supported version. */
export const OLDEST_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/opencode-oldest/bin/opencode.exe', import.meta.url),
);

/** Both versions of OpenCode 1, for suites that run on each. */
export const OPENCODES = [
  { name: 'pinned opencode', binary: PINNED_OPENCODE },
  { name: 'oldest opencode', binary: OLDEST_OPENCODE },
] as const;

/** The preview of OpenCode 2 (`lildax`), which exists for 64-bit Linux on x86 only. */
export const PREVIEW_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/@opencode-ai/cli-linux-x64/bin/lildax', import.meta.url),
);

/** For `describe.skipIf`: whether the binary is missing. Fails instead in CI. */
export function isMissing(binary: string): boolean {
  return isSkipped(existsSync(binary) ? undefined : `needs ${binary}: run node scripts/install-components.mjs`);
}
