import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';

import { missingForNamespaces } from './namespaces.ts';
import { skipFor } from '../needed.ts';
import { PINNED_OPENCODE } from '../opencode/opencode-binaries.ts';

/** Kept in step with scripts/install-tailnet.mjs. */
const FOLDER = fileURLToPath(new URL('../../../.cache/tailnet/tailscale-1.98.10-headscale-0.29.2/', import.meta.url));

export const TAILNET_VERSIONS = 'headscale 0.29.2, tailscaled 1.98.10';

export const HEADSCALE = join(FOLDER, 'headscale');
export const TAILSCALE = join(FOLDER, 'tailscale');
export const TAILSCALED = join(FOLDER, 'tailscaled');

/** Call it first in each test that needs a tailnet. */
export function needTailnet(context: Pick<TestContext, 'skip'>): void {
  skipFor(context, missing());
}

/** For hooks, which cannot skip a test. */
export function canRunTailnet(): boolean {
  return missing() === undefined;
}

function missing(): string | undefined {
  const namespaces = missingForNamespaces();
  if (namespaces !== undefined) return namespaces;
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  if (![HEADSCALE, TAILSCALE, TAILSCALED].every((path) => existsSync(path)))
    return 'needs headscale and tailscaled: npm run test:tailnet, with Go';
  if (!existsSync(PINNED_OPENCODE)) return 'needs opencode: node scripts/install-components.mjs opencodes';
  return undefined;
}
