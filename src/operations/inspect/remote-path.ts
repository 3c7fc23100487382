import { singleLine } from '../../base/plain-text.ts';
import { OperationError } from '../answer.ts';

/** As long as Linux takes. */
const MAX_CHARS = 4096;

/**
 * `path` relative to `directory`, without `.` and doubled slashes; an absolute one is taken where it lies in `directory`.
 * opencode refuses what leads out of it, links too, with a 500 and no reason; this says so before, and does not rely on it.
 * @throws {OperationError}
 */
export function pathWithin(path: string, directory: string): string {
  const shown = JSON.stringify(singleLine(path, 200));
  if (path.length > MAX_CHARS) throw new OperationError(`path ${shown} is longer than ${MAX_CHARS} characters.`);
  const inside = path === directory || path.startsWith(`${directory}/`);
  const relative = inside ? path.slice(directory.length + 1) : path;
  const leadsOut =
    relative.includes('\0') ||
    /^(?:[/\\]|[A-Za-z]:)/.test(relative) ||
    // A backslash parts names on Windows only, but who can tell what runs there.
    relative.split(/[/\\]/).includes('..');
  if (leadsOut) {
    throw new OperationError(
      `path ${shown} leads out of ${JSON.stringify(singleLine(directory, 200))}; give one inside, relative to it. list_files shows what is there.`,
    );
  }
  return relative
    .split('/')
    .filter((step) => step !== '' && step !== '.')
    .join('/');
}
