/**
 * Whether all of `text` matches `pattern`. `*` matches any run of characters, including none; case is ignored. Builds no regular
 * expression, so that no pattern is slow.
 */
export function matchesPattern(pattern: string, text: string): boolean {
  return matchesAsWritten(pattern.toLowerCase(), text.toLowerCase());
}

/** As `matchesPattern`, but case-sensitive. */
export function matchesAsWritten(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  const last = rest.pop();
  if (last === undefined) return text === first;
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false;
  const end = text.length - last.length;
  let from = first.length;
  // The leftmost match of each part leaves the most for the next, so backtracking is never needed.
  for (const part of rest) {
    const at = text.indexOf(part, from);
    if (at < 0 || at + part.length > end) return false;
    from = at + part.length;
  }
  return true;
}

/** Whether a pattern matches a single text only. */
export function isExactPattern(pattern: string): boolean {
  return !pattern.includes('*');
}
