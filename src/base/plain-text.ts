/**
 * The border for text that came from another machine. What is left can neither steer a terminal, nor
 * reorder or hide characters, nor carry text that only a model reads. Inside a sentence of ours it stands
 * in quotation marks (`quoted`, `quoteName`), and whatever leaves this program is swept once more as a
 * whole (`safeToShow`). Values that go back to where they came from stay as they are.
 */

/* oxlint-disable no-control-regex -- control characters are what this file is about */

/**
 * Escape sequences as a terminal reads them, 7-bit and 8-bit form. A string sequence (OSC, DCS,
 * SOS, PM, APC) that is never ended loses its introducer only: taking all up to the end would let
 * one character hide the rest. Its body excludes controls, which keeps the match linear.
 */
const ESCAPE_SEQUENCE =
  /(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0000-\u001f\u007f-\u009f]*(?:\u0007|\u001b\\|\u009c)|(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b[ -/]*[0-~]/gu;

/**
 * C0 and C1 controls other than \t and \n, all that Unicode says to draw as nothing (zero-width
 * and bidi characters, variation selectors, tag characters, fillers), interlinear annotations,
 * and lone surrogates, which break encoders further on.
 */
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\ufff9-\ufffb\p{Default_Ignorable_Code_Point}\p{Surrogate}]/gu;

/** Everything that some reader takes for the end of a line. A lone \r would let a line overwrite itself. */
const LINE_BREAK = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/gu;

/** `text` on one line of at most `maxChars` code points; a cut ends in `…`. */
export function singleLine(text: string, maxChars: number): string {
  return cut(clean(text).replace(/[\t\n]+/g, ' '), maxChars);
}

/** `text` with its line breaks (as `\n`) and tabs, at most `maxChars` code points; a cut ends in `…`. */
export function multiLine(text: string, maxChars: number): string {
  return cut(clean(text), maxChars);
}

/**
 * Remote words inside a sentence of ours, at most `maxChars` of them: in quotation marks, which they cannot hold
 * themselves, so that they end where the marks end.
 */
export function quoted(text: string, maxChars: number): string {
  const words = singleLine(text, maxChars).replaceAll('"', "'").trim();
  // A backslash there would seem to take the mark behind it in.
  return `"${words.replace(/\\$/, '\\ ')}"`;
}

/** A remote name inside a sentence of ours: bare where it cannot be mistaken for anything else, else quoted. */
export function quoteName(name: string): string {
  const line = singleLine(name, Infinity);
  return /^[\p{L}\p{N}_.@:#+~/-]+$/u.test(line) ? line : JSON.stringify(line);
}

/** As `quoted` and `quoteName` write it. */
const QUOTATION = /"(?:\\.|[^"\\])*"|«[^»]*»/gs;

/** A sentence of ours that quotes remote words, on one line of at most `maxChars`. A quotation that the cut leaves open is closed. */
export function sentence(text: string, maxChars: number): string {
  const line = singleLine(text, maxChars);
  if (line === singleLine(text, Infinity)) return line;
  const shorter = singleLine(text, maxChars - 1);
  const [open] = /["«]/.exec(shorter.replaceAll(QUOTATION, '')) ?? [];
  return open === undefined ? line : shorter + (open === '«' ? '»' : '"');
}

/** `text` with each quotation blank, as long as it was: what is left are our own words, at their places. */
export function withoutQuotations(text: string): string {
  const blank = (words: string): string => '_'.repeat(words.length);
  return text.replaceAll(QUOTATION, blank).replace(/["«].*$/s, blank);
}

/** `value` with every string in it cleaned, line breaks and tabs kept: the last look at what leaves this program. */
export function safeToShow<T>(value: T): T {
  return swept(value) as T;
}

function swept(value: unknown): unknown {
  if (typeof value === 'string') return clean(value);
  if (Array.isArray(value)) return value.map(swept);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [clean(key), swept(one)]));
}

/** A sequence or a pair that the next piece may go on with: a lone \r, half a surrogate pair, an escape sequence without its end. */
const UNFINISHED =
  /(?:\r|[\ud800-\udbff]|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0000-\u001f\u007f-\u009f]*\u001b?|(?:\u001b\[|\u009b)[0-?]*[ -/]*|\u001b[ -/]*)$/;

/** More is no sequence: terminals take far shorter ones, and what is held back is not shown. */
const MAX_UNFINISHED_CHARS = 200;

/** Cleans text that comes in pieces: what one piece begins and the next one ends is one sequence. */
export class StreamCleaner {
  #rest = '';

  /** The clean text that is certain by now. */
  add(piece: string): string {
    const text = this.#rest + piece;
    const at = UNFINISHED.exec(text.slice(-MAX_UNFINISHED_CHARS))?.[0].length ?? 0;
    this.#rest = text.slice(text.length - at);
    return clean(text.slice(0, text.length - at));
  }

  /** What was held back, as far as it can be shown. */
  end(): string {
    const rest = this.#rest;
    this.#rest = '';
    return clean(rest);
  }
}

function clean(text: string): string {
  return text.replace(ESCAPE_SEQUENCE, '').replace(LINE_BREAK, '\n').replace(UNSAFE, '');
}

/** By code point, so that no surrogate pair is torn. */
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
 * One word for a shell, whatever a machine calls itself: such commands are copied and run. Cleaned before it is quoted: to clean
 * the command would take quotation marks out of it.
 */
export function shellWord(word: string): string {
  const plain = singleLine(word, Infinity);
  return /^[\w@%+:,./-]+$/.test(plain) ? plain : `'${plain.replaceAll("'", String.raw`'\''`)}'`;
}
