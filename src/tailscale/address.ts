import { execFileSync } from 'node:child_process';
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
  /** `lsof` output: the files that this user's process of the App Store build holds open. */
  readonly appFiles: () => string;
}

export const realSystem: AddressSystem = {
  platform: process.platform,
  exists: existsSync,
  readLink: readlinkSync,
  readText: (path) => readFileSync(path, 'utf8'),
  appFiles: rarely(listAppFiles),
};

const LINUX_SOCKET = '/var/run/tailscale/tailscaled.sock';
/** Synology DSM 7's package. */
const SYNOLOGY_SOCKET = '/var/packages/Tailscale/var/tailscaled.sock';
/** The open-source daemon on macOS and the BSDs. */
const BSD_SOCKET = '/var/run/tailscaled.socket';
const WINDOWS_PIPE = '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled';

/** macOS, the standalone GUI build: a link whose target is the port, and a file with the token for it (tailscale 1.98). */
const MAC_FOLDER = '/Library/Tailscale';
const MAC_APP = '/Applications/Tailscale.app';

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

function macApp(system: AddressSystem): LocalApiAddress | undefined {
  return attempt(() => standaloneApp(system)) ?? attempt(() => appStoreApp(system));
}

function standaloneApp({ readLink, readText }: AddressSystem): LocalApiAddress | undefined {
  const port = portOf(readLink(`${MAC_FOLDER}/ipnport`));
  const token = port === undefined ? '' : readText(`${MAC_FOLDER}/sameuserproof-${port}`).trim();
  return port === undefined || token === '' ? undefined : { kind: 'port', port, token };
}

/** Port and token are in the name of a file that its process, which runs as this user, holds open (tailscale 1.98). */
function appStoreApp({ exists, appFiles }: AddressSystem): LocalApiAddress | undefined {
  // Where there is no app, nobody is to pay for looking at its files.
  if (!exists(MAC_APP)) return undefined;
  const [, digits = '', token = ''] = /\/sameuserproof-(\d+)-([^\s/]+)$/m.exec(appFiles()) ?? [];
  const port = portOf(digits);
  return port === undefined ? undefined : { kind: 'port', port, token };
}

function portOf(digits: string): number | undefined {
  const port = /^\d{1,5}$/.test(digits) ? Number(digits) : 0;
  return port < 1 || port > 65_535 ? undefined : port;
}

function attempt<T>(look: () => T | undefined): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** `lsof` answers in tens of milliseconds, for which everything else stands still. */
const LSOF_LIMIT_MS = 2_000;
const LSOF_PAUSE_MS = 30_000;

function listAppFiles(): string {
  const args = ['-n', '-a', `-u${process.getuid?.() ?? 0}`, '-c', 'IPNExtension', '-Fn'];
  return execFileSync('lsof', args, { encoding: 'utf8', timeout: LSOF_LIMIT_MS, stdio: ['ignore', 'pipe', 'ignore'] });
}

/** As `look`, or what it found less than half a minute ago. */
function rarely(look: () => string): () => string {
  let found = '';
  let atMs = Number.NEGATIVE_INFINITY;
  return () => {
    if (performance.now() - atMs < LSOF_PAUSE_MS) return found;
    found = '';
    try {
      found = look();
    } finally {
      atMs = performance.now();
    }
    return found;
  };
}
