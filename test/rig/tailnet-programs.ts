import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';

import { PINNED_OPENCODE } from './opencode-binaries.ts';

/** Kept in step with scripts/install-tailnet.mjs. */
const FOLDER = fileURLToPath(new URL('../../.cache/tailnet/tailscale-1.98.10-headscale-0.29.2/', import.meta.url));

export const TAILNET_VERSIONS = 'headscale 0.29.2, tailscaled 1.98.10';

export const HEADSCALE = join(FOLDER, 'headscale');
export const TAILSCALE = join(FOLDER, 'tailscale');
export const TAILSCALED = join(FOLDER, 'tailscaled');

/** First line of a test that needs a tailnet: without the means it is skipped and says so; in CI that is a failure. */
export function needTailnet({ skip }: Pick<TestContext, 'skip'>): void {
  const reason = missing();
  if (reason === undefined) return;
  if (process.env['CI'] === 'true') throw new Error(`Expected every component, because CI=true; ${reason}`);
  skip(true, reason);
}

/** For hooks, which cannot skip. */
export function canRunTailnet(): boolean {
  return missing() === undefined;
}

function missing(): string | undefined {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0) return 'needs root on Linux, for network namespaces';
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  if (!['/usr/sbin/ip', '/sbin/ip', '/usr/bin/ip'].some((path) => existsSync(path))) return 'needs iproute2';
  if (![HEADSCALE, TAILSCALE, TAILSCALED].every((path) => existsSync(path)))
    return 'needs headscale and tailscaled: npm run test:tailnet, with Go';
  if (!existsSync(PINNED_OPENCODE)) return 'needs opencode: node scripts/install-components.mjs opencodes';
  return undefined;
}
