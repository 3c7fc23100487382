import { existsSync, readFileSync, readlinkSync } from 'node:fs';

/** Where tailscaled's LocalAPI listens. */
export type LocalApiAddress =
  | { readonly kind: 'socket'; readonly path: string }
  /** macOS GUI builds: a loopback port, with a token as the password of an empty user. */
  | { readonly kind: 'port'; readonly port: number; readonly token: string };

/** What of the system the search looks at. A test replaces any of it. */
export interface AddressSystem {
  readonly platform: NodeJS.Platform;
  readonly exists: (path: string) => boolean;
  readonly readLink: (path: string) => string;
  readonly readText: (path: string) => string;
}

export const realSystem: AddressSystem = {
  platform: process.platform,
  exists: existsSync,
  readLink: readlinkSync,
  readText: (path) => readFileSync(path, 'utf8'),
};

const LINUX_SOCKET = '/var/run/tailscale/tailscaled.sock';
/** Synology DSM 7's package. */
const SYNOLOGY_SOCKET = '/var/packages/Tailscale/var/tailscaled.sock';
/** The open-source daemon on macOS and the BSDs. */
const BSD_SOCKET = '/var/run/tailscaled.socket';
const WINDOWS_PIPE = '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled';

/** macOS, the standalone GUI build: a link whose target is the port, and a file with the token for it. */
const MAC_FOLDER = '/Library/Tailscale';

/**
 * Where the LocalAPI is: at `override`, else where tailscaled has it on this system. The container's `/tmp/tailscaled.sock`
 * is not among the defaults: whoever may write to /tmp could answer there in tailscaled's name. Looks anew at each call,
 * since the macOS app takes another port at each start.
 */
export function localApiAddress(override: string | undefined, system: AddressSystem = realSystem): LocalApiAddress {
  if (override !== undefined) return { kind: 'socket', path: override };
  const { platform, exists } = system;
  if (platform === 'win32') return { kind: 'socket', path: WINDOWS_PIPE };
  if (platform === 'linux')
    return { kind: 'socket', path: !exists(LINUX_SOCKET) && exists(SYNOLOGY_SOCKET) ? SYNOLOGY_SOCKET : LINUX_SOCKET };
  const app = platform === 'darwin' && !exists(BSD_SOCKET) ? macApp(system) : undefined;
  return app ?? { kind: 'socket', path: BSD_SOCKET };
}

/** The address as an error shows it; never the token. */
export function shownAddress(address: LocalApiAddress): string {
  return address.kind === 'socket' ? address.path : `127.0.0.1:${address.port}`;
}

/** The App Store build tells its port only in the name of a file that its process holds open, which is not looked for here. */
function macApp({ readLink, readText }: AddressSystem): LocalApiAddress | undefined {
  try {
    const text = readLink(`${MAC_FOLDER}/ipnport`);
    const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    if (port < 1 || port > 65_535) return undefined;
    const token = readText(`${MAC_FOLDER}/sameuserproof-${port}`).trim();
    return token === '' ? undefined : { kind: 'port', port, token };
  } catch {
    return undefined;
  }
}
