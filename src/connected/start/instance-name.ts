import { hasUnsafeCharacters, quote } from '../../config/quote.ts';
import { SettingsError } from '../../config/settings.ts';

/** A file name has at most 255 bytes, which must hold `-12` and `.claim` too; a listing shows it on one line. */
const MAX_NAME_BYTES = 200;
const MAX_NAME_CHARS = 100;

/** Returns a name that can be a file name, here and on the relay. @throws {SettingsError} it cannot */
export function checkInstanceName(written: string): string {
  const problem = nameProblem(written);
  if (problem !== undefined) throw new SettingsError(`INSTANCE_NAME: ${problem}, got ${quote(written)}`);
  return written;
}

function nameProblem(name: string): string | undefined {
  if (/[/\\]/.test(name)) return 'expected a name without slashes';
  if (name.startsWith('.')) return 'expected a name that does not start with a dot';
  if (name.startsWith('-')) return 'expected a name that does not start with a dash';
  if (hasUnsafeCharacters(name)) return 'expected a name without control or invisible characters';
  if (name !== name.trim()) return 'expected a name without spaces around it';
  if (Array.from(name).length > MAX_NAME_CHARS || Buffer.byteLength(name) > MAX_NAME_BYTES) {
    return `expected at most ${MAX_NAME_CHARS} characters and ${MAX_NAME_BYTES} bytes`;
  }
  return undefined;
}
