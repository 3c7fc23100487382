import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { isSkipped } from '../needed.ts';

/** What the tests mean by "opencode": the newest version that is supported. */
export const PINNED_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/opencode-pinned/bin/opencode.exe', import.meta.url),
);

/** The oldest version that is supported, from `test/opencodes`. */
export const OLDEST_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/opencode-oldest/bin/opencode.exe', import.meta.url),
);

/** Both of generation 1, for suites that must hold on both. */
export const OPENCODES = [
  { name: 'pinned opencode', binary: PINNED_OPENCODE },
  { name: 'oldest opencode', binary: OLDEST_OPENCODE },
] as const;

/** The preview of OpenCode 2 (`lildax`), which exists for 64-bit Linux on x86 only. */
export const PREVIEW_OPENCODE = fileURLToPath(
  new URL('../../opencodes/node_modules/@opencode-ai/cli-linux-x64/bin/lildax', import.meta.url),
);

/** For `describe.skipIf`. */
export function isMissing(binary: string): boolean {
  return isSkipped(existsSync(binary) ? undefined : `needs ${binary}: run node scripts/install-components.mjs`);
}
