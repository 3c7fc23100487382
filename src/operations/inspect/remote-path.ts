import { singleLine } from '../../base/plain-text.ts';
import { OperationError } from '../answer.ts';

/** Linux's limit. */
const MAX_CHARS = 4096;

/**
 * `path` relative to `directory`, without `.` and doubled slashes; an absolute path must lie in `directory`. opencode refuses paths
 * that lead out of it, links too, with a bare 500; this check gives the reason, and does not rely on opencode.
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
    // A backslash separates names only on Windows, but the remote system is unknown.
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
