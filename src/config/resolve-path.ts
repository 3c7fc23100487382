import { join, resolve } from 'node:path';

/** A path as a person writes it, made absolute: `~/` is the home folder, a relative one starts at `base`. */
export function resolvePath(written: string, home: string, base: string): string {
  if (written === '~') return home;
  return written.startsWith('~/') ? join(home, written.slice(2)) : resolve(base, written);
}
