/** Stands at the end of a string that was cut. */
export const CUT_MARK = ' … [the rest was too large to read]';

const MARK = Buffer.from(CUT_MARK);
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;
const LETTER_U = 0x75;

/**
 * Cuts the long strings of JSON while it arrives: what makes an answer or an event large is a picture, a diff or a
 * tool's output, and what is needed of it is small. Works on server-sent events, too: a JSON string has no newline in it.
 */
export class LongStringCutter {
  readonly #maxBytes: number;
  /** Bytes of the string so far; undefined outside of one. */
  #bytes: number | undefined;
  #isEscaped = false;
  /** Digits of a `\uXXXX` still to come. */
  #digits = 0;
  #isDropping = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What is kept of the next bytes. */
  write(chunk: Uint8Array): Uint8Array {
    const kept: Uint8Array[] = [];
    let from = 0;
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at];
      if (this.#bytes === undefined) {
        if (byte === QUOTE) this.#bytes = 0;
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
      } else if (!this.#isDropping && this.#bytes > this.#maxBytes && this.#isBetweenCharacters(byte)) {
        kept.push(chunk.subarray(from, at));
        this.#isDropping = true;
      }
      this.#digits = this.#isEscaped && byte === LETTER_U ? 4 : Math.max(0, this.#digits - 1);
      this.#isEscaped = !isEnd && byte === BACKSLASH && !this.#isEscaped;
    }
    if (kept.length === 0 && !this.#isDropping) return chunk;
    if (!this.#isDropping) kept.push(chunk.subarray(from));
    return Buffer.concat(kept);
  }

  /** Not inside an escape or a character of several bytes, whose later ones begin with the bits 10. */
  #isBetweenCharacters(next = 0): boolean {
    return !this.#isEscaped && this.#digits === 0 && (next & 0xc0) !== 0x80;
  }
}
