// Fewer for short words, which two edits turn into another word.
const MAX_EDITS = 2;

/** The known word that `word` probably misspells, or undefined. Ignores case, `-` and `_`. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const wanted = plain(word);
  let best: string | undefined;
  let fewest = Math.min(MAX_EDITS, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known) {
    const edits = editDistance(wanted, plain(candidate), fewest);
    if (edits >= fewest) continue;
    best = candidate;
    fewest = edits;
  }
  return best;
}

/** `; did you mean X?`, or nothing. */
export function didYouMean(word: string, known: readonly string[]): string {
  const meant = nearest(word, known);
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}

function plain(word: string): string {
  return word.toLowerCase().replace(/[-_]/g, '');
}

/** Levenshtein distance, or `limit` if the lengths already differ by that much. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  // Distances between the letters of `a` so far and every prefix of `b`.
  let row = Array.from({ length: b.length + 1 }, (_, length) => length);
  for (const [index, letter] of Array.from(a).entries()) {
    let last = index + 1;
    row = row.map((removed, length) => {
      if (length === 0) return last;
      const replaced = (row[length - 1] ?? 0) + (letter === b[length - 1] ? 0 : 1);
      last = Math.min(replaced, removed + 1, last + 1);
      return last;
    });
  }
  return row[b.length] ?? limit;
}
