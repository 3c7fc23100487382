/** Stands at the end of a string that was cut. */
export const CUT_MARK = ' … [the rest was too large to read]';

const MARK = Buffer.from(CUT_MARK);
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;
const LETTER_U = 0x75;
const OPENING = new Set([0x5b, 0x7b]);
const CLOSING = new Set([0x5d, 0x7d]);

/** What is needed of any answer or event lies within so many brackets, the options of a form of OpenCode 2 deepest; a tool’s own lists lie deeper. */
const MAX_DEPTH = 7;

/**
 * Cuts the long strings of JSON while it arrives, and empties what is nested deeply: what makes an answer or an event large is
 * a picture, a diff, a tool's output or its lists, and what is needed of it is small. Works on server-sent events, too: each is one line.
 */
export class JsonCutter {
  readonly #maxBytes: number;
  readonly #isOfLines: boolean;
  /** Bytes of the string so far; undefined outside of one. */
  #bytes: number | undefined;
  #isEscaped = false;
  /** Digits of a `\uXXXX` still to come. */
  #digits = 0;
  /** The rest of a string. */
  #isDropping = false;
  /** Open brackets. */
  #depth = 0;

  /** @param isOfLines each line is JSON of its own, or none; a string has no newline in it in any case */
  constructor(maxBytes: number, isOfLines = false) {
    this.#maxBytes = maxBytes;
    this.#isOfLines = isOfLines;
  }

  /** What is kept of the next bytes. */
  write(chunk: Uint8Array): Uint8Array {
    const kept: Uint8Array[] = [];
    let from = this.#depth > MAX_DEPTH || this.#isDropping ? undefined : 0;
    const stop = (at: number): void => {
      if (from !== undefined) kept.push(chunk.subarray(from, at));
      from = undefined;
    };
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at] ?? 0;
      if (this.#isOfLines && byte === NEWLINE) {
        from ??= at;
        this.#depth = 0;
      }
      if (this.#bytes === undefined) {
        if (byte === QUOTE) this.#bytes = 0;
        else if (OPENING.has(byte) && (this.#depth += 1) === MAX_DEPTH + 1) stop(at + 1);
        else if (CLOSING.has(byte) && (this.#depth -= 1) === MAX_DEPTH) from = at;
        continue;
      }
      this.#bytes += 1;
      const isEnd = (byte === QUOTE && !this.#isEscaped) || byte === NEWLINE;
      if (isEnd) {
        if (this.#isDropping) {
          kept.push(MARK);
          from = at;
        }
        this.#bytes = undefined;
        this.#isDropping = false;
      } else if (from !== undefined && this.#bytes > this.#maxBytes && this.#isBetweenCharacters(byte)) {
        stop(at);
        this.#isDropping = true;
      }
      this.#digits = this.#isEscaped && byte === LETTER_U ? 4 : Math.max(0, this.#digits - 1);
      this.#isEscaped = !isEnd && byte === BACKSLASH && !this.#isEscaped;
    }
    if (from === 0 && kept.length === 0) return chunk;
    stop(chunk.length);
    return Buffer.concat(kept);
  }

  /** Not inside an escape or a character of several bytes, whose later ones begin with the bits 10. */
  #isBetweenCharacters(next = 0): boolean {
    return !this.#isEscaped && this.#digits === 0 && (next & 0xc0) !== 0x80;
  }
}
