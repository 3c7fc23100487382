/** Longer lines are cut to the part that differs, since some files are a single line. */
const MAX_LINE_CHARS = 160;

/**
 * The lines that differ, with `-` and `+`, after the number of the first. No context lines, and no lines that only gain or lose
 * a comma, because other entries of the file may hold secrets.
 */
export function difference(before: string, after: string): readonly string[] {
  const old = linesOf(before);
  const now = linesOf(after);
  const start = commonLength(old, now);
  const end = commonLength(old.slice(start).toReversed(), now.slice(start).toReversed());
  const gone = old.slice(start, old.length - end);
  const come = now.slice(start, now.length - end);
  const minus = gone.filter((line) => !isSameButComma(line, come));
  const plus = come.filter((line) => !isSameButComma(line, gone));
  const longer = plus.length > 0 ? come : gone;
  const first = start + longer.indexOf((plus.length > 0 ? plus : minus)[0] ?? '');
  const isOneLine = minus.length === 1 && plus.length === 1;
  const other = (lines: readonly string[]): string | undefined => (isOneLine ? lines[0] : undefined);
  return [
    `line ${first + 1}:`,
    ...minus.map((line) => cut(line, other(plus))).flatMap((part) => (part === '' ? [] : `- ${part}`)),
    ...plus.map((line) => cut(line, other(minus))).flatMap((part) => (part === '' ? [] : `+ ${part}`)),
  ];
}

function isSameButComma(line: string, others: readonly string[]): boolean {
  return others.some((other) => other.replaceAll(',', '') === line.replaceAll(',', ''));
}

function linesOf(text: string): readonly string[] {
  return text === '' ? [] : text.replace(/\r?\n$/, '').split(/\r?\n/);
}

function commonLength(one: ArrayLike<string>, other: ArrayLike<string>): number {
  let length = 0;
  while (length < one.length && length < other.length && one[length] === other[length]) length += 1;
  return length;
}

/** The part of a line that the other one lacks, if the line is long or one of them only adds text to the other; otherwise the whole line. */
function cut(line: string, other: string | undefined): string {
  if (other === undefined) return line;
  const start = commonLength(line, other);
  const same = commonLength(reversed(line.slice(start)), reversed(other.slice(start)));
  const isOneMore = start + same === Math.min(line.length, other.length);
  if (line.length <= MAX_LINE_CHARS && !isOneMore) return line;
  const part = line.slice(start, line.length - same);
  return part === '' ? '' : `${start > 0 ? '…' : ''}${part}${same > 0 ? '…' : ''}`;
}

function reversed(text: string): readonly string[] {
  return text.split('').toReversed();
}
