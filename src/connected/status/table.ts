/** Narrower than any terminal in use. */
export const WIDTH = 80;

/** `text` in exactly `width` characters: cut with `…`, or padded. */
export function cell(text: string, width: number): string {
  return fitted(text, width) + ' '.repeat(Math.max(0, width - Array.from(text).length));
}

export function fitted(text: string, width: number): string {
  const characters = Array.from(text);
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join('')}…`;
}

/** Cuts a path at its beginning, since its end says more. */
export function fittedPath(path: string, width: number): string {
  const characters = Array.from(path);
  return characters.length <= width ? path : `…${characters.slice(characters.length - width + 1).join('')}`;
}

/** Indented lines of at most `WIDTH` characters, broken between words. A longer word stays whole. */
export function wrapped(text: string, indent: string): readonly string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(' ')) {
    const next = line === indent ? indent + word : `${line} ${word}`;
    if (line !== indent && Array.from(next).length > WIDTH) {
      lines.push(line);
      line = indent + word;
    } else line = next;
  }
  return line === indent ? lines : [...lines, line];
}
