/** A bash command line up to the cursor. */
export interface BashLine {
  /** Complete words before the one at the cursor, without their quotes. The first is the program. */
  readonly words: readonly string[];
  /** The word at the cursor, without its quotes. */
  readonly current: string;
  /** The text to return to bash, which replaces a part of the word, so that the word becomes `text`. */
  readonly replacement: (text: string) => string;
}

type Quote = '' | "'" | '"';

/**
 * Parses as bash does. bash replaces only the part of the word after an open quote, or after its last unquoted word break
 * (`COMP_WORDBREAKS`), such as a colon.
 */
export function readBashLine(line: string, wordBreaks: string): BashLine {
  const words: string[] = [];
  let current = '';
  let isWord = false;
  let quote: Quote = '';
  /** Length of `current` before the part that is replaced. */
  let kept = 0;
  const next = (): void => {
    if (isWord) words.push(current);
    current = '';
    isWord = false;
    kept = 0;
  };
  for (let index = 0; index < line.length; index += 1) {
    const character = line[index] ?? '';
    const following = line[index + 1];
    if (quote === "'") {
      if (character === "'") quote = '';
      else current += character;
    } else if (character === '\\' && isEscape(quote, following)) {
      index += 1;
      isWord = true;
      current += following ?? '';
    } else if (character === quote) quote = '';
    else if (quote === '' && (character === "'" || character === '"')) {
      quote = character;
      isWord = true;
      kept = current.length;
    } else if (quote === '' && /\s/.test(character)) next();
    else if (quote === '' && /[;&|()]/.test(character)) {
      next();
      words.length = 0;
    } else {
      isWord = true;
      current += character;
      if (quote === '' && wordBreaks.includes(character)) kept = current.length;
    }
  }
  return {
    words,
    current,
    replacement: (text) => escaped(text.slice(kept), quote, kept === 0),
  };
}

/** In double quotes a backslash is literal before most characters. */
function isEscape(quote: Quote, following: string | undefined): boolean {
  return following !== undefined && (quote === '' || /["$`\\]/.test(following));
}

/** Inside an open quote, which bash closes. */
function escaped(text: string, quote: Quote, isStart: boolean): string {
  if (quote === "'") return text.replaceAll("'", String.raw`'\''`);
  // An exclamation mark cannot be escaped in double quotes.
  if (quote === '"') return text.replace(/["$`\\]/g, String.raw`\$&`).replaceAll('!', `"'!'"`);
  const plain = text.replace(/[^\w.,:@%+/=~#^\-\u0080-\u{10ffff}]/gu, String.raw`\$&`);
  return isStart ? plain.replace(/^[~#]/, String.raw`\$&`) : plain;
}
