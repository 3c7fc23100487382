/**
 * Cleans text from other machines, so that it cannot control a terminal, reorder or hide characters,
 * or carry text that only a model sees. Inside our own sentences it is quoted (`quoted`, `quoteName`),
 * and all output is cleaned once more as a whole (`safeToShow`). Values sent back to their origin are
 * not changed.
 */

/* oxlint-disable no-control-regex -- this file matches control characters */

/**
 * Terminal escape sequences, 7-bit and 8-bit form. An unterminated string sequence (OSC, DCS,
 * SOS, PM, APC) loses its introducer only; otherwise one character could hide the rest of the
 * text. Its body excludes controls, which keeps the match linear.
 */
const ESCAPE_SEQUENCE =
  /(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0000-\u001f\u007f-\u009f]*(?:\u0007|\u001b\\|\u009c)|(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b[ -/]*[0-~]/gu;

/**
 * C0 and C1 controls other than \t and \n, default-ignorable code points (zero-width and bidi
 * characters, variation selectors, tag characters, fillers), interlinear annotations, and lone
 * surrogates, which break encoders.
 */
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\ufff9-\ufffb\p{Default_Ignorable_Code_Point}\p{Surrogate}]/gu;

/** Everything that any reader treats as a line end. A lone \r would let a line overwrite itself. */
const LINE_BREAK = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/gu;

/** `text` on one line of at most `maxChars` code points; a cut ends in `…`. */
export function singleLine(text: string, maxChars: number): string {
  return cut(clean(text).replace(/[\t\n]+/g, ' '), maxChars);
}

/** `text` with line breaks (as `\n`) and tabs, at most `maxChars` code points; a cut ends in `…`. */
export function multiLine(text: string, maxChars: number): string {
  return cut(clean(text), maxChars);
}

/** Remote text inside a sentence of ours, at most `maxChars`, in quotation marks, which are removed from the text itself. */
export function quoted(text: string, maxChars: number): string {
  const words = singleLine(text, maxChars).replaceAll('"', "'").trim();
  // A final backslash would seem to escape the closing mark.
  return `"${words.replace(/\\$/, '\\ ')}"`;
}

/** A remote name or path inside a sentence of ours: bare if it cannot be mistaken for anything else, otherwise quoted. */
export function quoteName(name: string): string {
  return quoteShort(name, Infinity);
}

/** As `quoteName`, at most `maxChars` of it. */
export function quoteShort(name: string, maxChars: number): string {
  const line = singleLine(name, maxChars);
  return /^[\p{L}\p{N}_.@:#+~/-]+$/u.test(line) ? line : JSON.stringify(line);
}

/** As `quoted` and `quoteName` write it. */
const QUOTATION = /"(?:\\.|[^"\\])*"|«[^»]*»/gs;

/** A sentence of ours with quotations, on one line of at most `maxChars`. A quotation that is cut is closed. */
export function sentence(text: string, maxChars: number): string {
  const line = singleLine(text, maxChars);
  if (line === singleLine(text, Infinity)) return line;
  const shorter = singleLine(text, maxChars - 1);
  const [open] = /["«]/.exec(shorter.replaceAll(QUOTATION, '')) ?? [];
  return open === undefined ? line : shorter + (open === '«' ? '»' : '"');
}

/** `text` with each quotation replaced by underscores, so that only our own words are left, at the same offsets. */
export function withoutQuotations(text: string): string {
  const blank = (words: string): string => '_'.repeat(words.length);
  return text.replaceAll(QUOTATION, blank).replace(/["«].*$/s, blank);
}

/** `value` with every string in it cleaned, except for line breaks and tabs; applied to all output. */
export function safeToShow<T>(value: T): T {
  return cleaned(value) as T;
}

function cleaned(value: unknown): unknown {
  if (typeof value === 'string') return clean(value);
  if (Array.isArray(value)) return value.map(cleaned);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [clean(key), cleaned(one)]));
}

/** An end that the next piece may continue: a lone \r, half a surrogate pair, an incomplete escape sequence. */
const UNFINISHED =
  /(?:\r|[\ud800-\udbff]|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0000-\u001f\u007f-\u009f]*\u001b?|(?:\u001b\[|\u009b)[0-?]*[ -/]*|\u001b[ -/]*)$/;

/** Longer than any real escape sequence. Bounds the text that is held back. */
const MAX_UNFINISHED_CHARS = 200;

/** Cleans text that arrives in pieces, with sequences that span two of them. */
export class StreamCleaner {
  #rest = '';

  /** The clean text so far, without an unfinished end. */
  add(piece: string): string {
    const text = this.#rest + piece;
    const at = UNFINISHED.exec(text.slice(-MAX_UNFINISHED_CHARS))?.[0].length ?? 0;
    this.#rest = text.slice(text.length - at);
    return clean(text.slice(0, text.length - at));
  }

  /** The text that was held back, cleaned. */
  end(): string {
    const rest = this.#rest;
    this.#rest = '';
    return clean(rest);
  }
}

function clean(text: string): string {
  return text.replace(ESCAPE_SEQUENCE, '').replace(LINE_BREAK, '\n').replace(UNSAFE, '');
}

/** Counts code points, so that no surrogate pair is split. */
function cut(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  let kept = 0;
  let end = 0;
  let endBeforeLast = 0;
  for (const character of text) {
    if (kept === maxChars) return maxChars === 0 ? '' : `${text.slice(0, endBeforeLast)}…`;
    endBeforeLast = end;
    end += character.length;
    kept += 1;
  }
  return text;
}

/**
 * One quoted word for a shell command that people copy and run. `word` may be remote text; it is cleaned before quoting, because
 * cleaning the whole command could remove quotation marks.
 */
export function shellWord(word: string): string {
  const plain = singleLine(word, Infinity);
  return /^[\w@%+:,./-]+$/.test(plain) ? plain : `'${plain.replaceAll("'", String.raw`'\''`)}'`;
}
