import { hasUnsafeCharacters } from '../config/quote.ts';

/** Two parts make a name that fits on a line. */
const MAX_PART_CHARS = 40;

/** `<hostname>-<directory>`; keeps only letters, digits, `.` and `_`. */
export function defaultName(hostname: string, directory: string): string {
  return joined([hostLabel(hostname), ending(directory, 1)]) || 'opencode';
}

/** The name of an OpenCode 2 service as a whole, which has no directory of its own. */
export function serviceName(hostname: string): string {
  return `${hostLabel(hostname)}:service`;
}

/** The first label of a host name, as part of an instance's name. */
export function hostLabel(hostname: string): string {
  return plain(hostname.split('.', 1)[0] ?? '');
}

/** To compare hosts: `laptop` and `Laptop.local` are one machine. An address is kept whole. */
export function hostKey(host: string): string {
  return (/^[\d.]+$|:/.test(host) ? host : (host.split('.', 1)[0] ?? '')).toLowerCase();
}

/** The last `count` parts of a POSIX or Windows path, as part of an instance's name. */
export function ending(directory: string, count: number): string {
  const parts = directory.split(/[\\/]/).filter((part) => part !== '');
  return joined(parts.slice(-count).map(plain));
}

function joined(parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join('-');
}

function plain(part: string): string {
  const kept = part.normalize('NFC').replace(/[^\p{L}\p{N}\p{M}._]+/gu, '-');
  const visible = hasUnsafeCharacters(kept) ? kept.replace(/[^\w.-]+/g, '-') : kept;
  return Array.from(visible)
    .slice(0, MAX_PART_CHARS)
    .join('')
    .replace(/^[-.]+|[-.]+$/g, '');
}
