import { multiLine, singleLine } from '../../base/plain-text.ts';
import { standingDiffs } from '../../operations/inspect/changes.ts';
import type { FileDiff } from '../../opencode/inspect-schema.ts';
import type { PlaceFound } from './find-session.ts';

const MAX_FILES = 100;
const MAX_PATH_CHARS = 400;
/** Per file. */
const MAX_PATCH_CHARS = 20_000;
/** In total. */
const MAX_ALL_CHARS = 300_000;

/** What a session's turns changed, by file. `more`: how many files are left out. */
export async function pageChanges({ connected: { api }, session }: PlaceFound) {
  const { diffs } = await standingDiffs(api, session);
  const byPath = new Map<string, FileDiff[]>();
  for (const diff of diffs) {
    const path = diff.file ?? '(unnamed)';
    byPath.set(path, [...(byPath.get(path) ?? []), diff]);
  }
  let left = MAX_ALL_CHARS;
  const files = [...byPath].slice(0, MAX_FILES).map(([path, all]) => {
    const patches = all
      .map(({ patch }) => patch.replace(/^Index: [^\n]*\n=+\n/, '').trimEnd())
      .filter((one) => one !== '');
    const patch = multiLine(patches.join('\n'), Math.min(left, MAX_PATCH_CHARS));
    left -= patch.length;
    return {
      path: singleLine(path, MAX_PATH_CHARS),
      added: sum(all.map(({ additions }) => additions)),
      removed: sum(all.map(({ deletions }) => deletions)),
      ...(patch !== '' && { patch }),
    };
  });
  return { files, more: byPath.size - files.length };
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, one) => total + one, 0);
}
