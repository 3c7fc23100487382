/** A longer line is cut to what differs: some files are one line. */
const MAX_LINE_CHARS = 160;

/**
 * The lines that differ, `-` before and `+` after, under the number of the first. Nothing around them, nor lines that gain or
 * lose a comma only: other entries of the file may hold secrets.
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
  return [
    `line ${first + 1}:`,
    ...minus.map((line) => `- ${cut(line, plus[0] ?? '')}`),
    ...plus.map((line) => `+ ${cut(line, minus[0] ?? '')}`),
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

/** The part of a line in which the other one differs, where the line is long or only has more than the other. */
function cut(line: string, other: string): string {
  const start = commonLength(line, other);
  const end = line.length - commonLength(reversed(line.slice(start)), reversed(other.slice(start)));
  const isInsertion = other !== '' && start + line.length - end === other.length;
  if (line.length <= MAX_LINE_CHARS && !isInsertion) return line;
  return `${start > 0 ? '…' : ''}${line.slice(start, end)}${end < line.length ? '…' : ''}`;
}

function reversed(text: string): readonly string[] {
  return text.split('').toReversed();
}
