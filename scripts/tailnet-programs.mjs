// The programs of the suites of a real tailnet, and whether this machine can run them.
import { existsSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

export const TAILSCALE = '1.98.10';
export const HEADSCALE = '0.29.2';

export const cache = join(dirname(dirname(fileURLToPath(import.meta.url))), '.cache', 'tailnet');
// Kept in step with test/rig/network/tailnet-programs.ts.
export const folder = join(cache, `tailscale-${TAILSCALE}-headscale-${HEADSCALE}`);

export function isBuilt() {
  return ['headscale', 'tailscale', 'tailscaled'].every((name) => existsSync(join(folder, name)));
}

/** Why the suites cannot run here even with their programs built, or undefined. */
export function obstacle() {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0)
    return 'they need root on Linux, for network namespaces';
  if (!existsSync('/dev/net/tun')) return 'they need /dev/net/tun';
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  if (!folders.some((path) => existsSync(join(path, 'ip')))) return 'they need iproute2';
  return undefined;
}
