/**
 * Whether the whole of `text` fits `pattern`, where `*` stands for any run of characters, an empty one too, and
 * everything else for itself, upper or lower case. No regular expression is built, so a pattern cannot be made slow.
 */
export function matchesPattern(pattern: string, text: string): boolean {
  return matchesAsWritten(pattern.toLowerCase(), text.toLowerCase());
}

/** As above, but upper and lower case differ. */
export function matchesAsWritten(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  const last = rest.pop();
  if (last === undefined) return text === first;
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false;
  const end = text.length - last.length;
  let from = first.length;
  // The leftmost place for each part leaves the most for the next ones, so there is nothing to go back for.
  for (const part of rest) {
    const at = text.indexOf(part, from);
    if (at < 0 || at + part.length > end) return false;
    from = at + part.length;
  }
  return true;
}

/** Whether a pattern fits a single text only. */
export function isExactPattern(pattern: string): boolean {
  return !pattern.includes('*');
}
