import { hasUnsafeCharacters } from '../config/quote.ts';

/** Of a part that nobody typed: two of them make a name that still fits a line. */
const MAX_PART_CHARS = 40;

/** `<hostname>-<directory>`, of whatever characters the directory's name has: only letters, digits, `.` and `_` stay. */
export function defaultName(hostname: string, directory: string): string {
  return joined([hostLabel(hostname), ending(directory, 1)]) || 'opencode';
}

/** What stands for an OpenCode 2 service, which works in no directory of its own. */
export function serviceName(hostname: string): string {
  return `${hostLabel(hostname)}:service`;
}

/** A host's full name says nothing more in a name than its first label. */
export function hostLabel(hostname: string): string {
  return plain(hostname.split('.', 1)[0] ?? '');
}

/** A machine as machines compare: it calls itself `laptop` here and `Laptop.local` there. An address counts whole. */
export function hostKey(host: string): string {
  return (/^[\d.]+$|:/.test(host) ? host : (host.split('.', 1)[0] ?? '')).toLowerCase();
}

/** The last `count` parts of a path, of this system or of Windows, as a name has them. */
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
