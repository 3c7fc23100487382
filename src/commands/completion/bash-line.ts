/** A command line of bash up to the cursor, and how what is completed there is written. */
export interface BashLine {
  /** Complete words before the one at the cursor, without their quotes. The first is the program. */
  readonly words: readonly string[];
  /** The word at the cursor, without its quotes. */
  readonly current: string;
  /** What bash is to put in the place of the part of that word that it replaces, for the word to become `text`. */
  readonly replacement: (text: string) => string;
}

type Quote = '' | "'" | '"';

/**
 * Reads what the person typed as bash would. bash replaces only what stands behind the last quote that is open, or behind the last of
 * its word breaks (`COMP_WORDBREAKS`) that is not quoted, a colon for one. Pure.
 */
export function readBashLine(line: string, wordBreaks: string): BashLine {
  const words: string[] = [];
  let current = '';
  let isWord = false;
  let quote: Quote = '';
  /** How much of `current` stands before the part that is replaced. */
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

/** In double quotes a backslash stands for itself before most characters. */
function isEscape(quote: Quote, following: string | undefined): boolean {
  return following !== undefined && (quote === '' || /["$`\\]/.test(following));
}

/** As a part of a word in which that quote is open; bash closes it. */
function escaped(text: string, quote: Quote, isStart: boolean): string {
  if (quote === "'") return text.replaceAll("'", String.raw`'\''`);
  // In double quotes nothing takes its meaning from an exclamation mark.
  if (quote === '"') return text.replace(/["$`\\]/g, String.raw`\$&`).replaceAll('!', `"'!'"`);
  const plain = text.replace(/[^\w.,:@%+/=~#^\-\u0080-\u{10ffff}]/gu, String.raw`\$&`);
  return isStart ? plain.replace(/^[~#]/, String.raw`\$&`) : plain;
}
