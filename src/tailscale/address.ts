import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';

export type LocalApiAddress =
  | { readonly kind: 'socket'; readonly path: string }
  /** macOS GUI builds: a loopback port, with a token as the password of an empty user name. */
  | { readonly kind: 'port'; readonly port: number; readonly token: string };

/** The system calls of the search; tests replace them. */
export interface AddressSystem {
  readonly platform: NodeJS.Platform;
  readonly exists: (path: string) => boolean;
  readonly readLink: (path: string) => string;
  readonly readText: (path: string) => string;
  /** `lsof` output: the open files of the App Store build's process. */
  readonly appFiles: () => string;
}

const realSystem: AddressSystem = {
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
 * The address of the LocalAPI: `override`, or the default of this system. The container's `/tmp/tailscaled.sock` is not a
 * default, because anyone who can write to /tmp could impersonate tailscaled. Call it before each request: the macOS app uses
 * another port after each start.
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

/** The address for errors, without the token. */
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

/** Port and token are in the name of a file that its process holds open (tailscale 1.98). */
function appStoreApp({ exists, appFiles }: AddressSystem): LocalApiAddress | undefined {
  // `lsof` is slow.
  if (!exists(MAC_APP)) return undefined;
  const [, digits = '', token = ''] = /\/sameuserproof-(\d+)-([^\s/]+)$/m.exec(appFiles()) ?? [];
  const port = portOf(digits);
  return port === undefined ? undefined : { kind: 'port', port, token };
}

function portOf(digits: string): number | undefined {
  const port = /^\d{1,5}$/.test(digits) ? Number(digits) : 0;
  return port < 1 || port > 65_535 ? undefined : port;
}

function attempt<T>(work: () => T | undefined): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** `lsof` takes tens of milliseconds, and blocks this process meanwhile. */
const LSOF_LIMIT_MS = 2_000;
const LSOF_PAUSE_MS = 30_000;

function listAppFiles(): string {
  const args = ['-n', '-a', `-u${process.getuid?.() ?? 0}`, '-c', 'IPNExtension', '-Fn'];
  return execFileSync('lsof', args, { encoding: 'utf8', timeout: LSOF_LIMIT_MS, stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Keeps the result of `work` for `LSOF_PAUSE_MS`. */
function rarely(work: () => string): () => string {
  let found = '';
  let atMs = Number.NEGATIVE_INFINITY;
  return () => {
    if (performance.now() - atMs < LSOF_PAUSE_MS) return found;
    found = '';
    try {
      found = work();
    } finally {
      atMs = performance.now();
    }
    return found;
  };
}
