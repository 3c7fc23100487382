/** Ends a string that was cut. */
export const CUT_MARK = ' … [the rest was too large to read]';

const MARK = Buffer.from(CUT_MARK);
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;
const LETTER_U = 0x75;
const OPENING = new Set([0x5b, 0x7b]);
const CLOSING = new Set([0x5d, 0x7d]);

/** The deepest fields in use, the form options of OpenCode 2, have this many open brackets; lists in the output of tools are deeper. */
const MAX_DEPTH = 7;

/**
 * Cuts long strings in JSON while it arrives, and empties deeply nested values. Large answers and events consist of pictures,
 * diffs and tool output, of which little is needed. Also works on server-sent events, each of which is one line.
 */
export class JsonCutter {
  readonly #maxBytes: number;
  readonly #isOfLines: boolean;
  /** Bytes of the string so far; undefined outside of one. */
  #bytes: number | undefined;
  #isEscaped = false;
  /** Remaining digits of a `\uXXXX`. */
  #digits = 0;
  /** Within the cut part of a string. */
  #isDropping = false;
  /** Open brackets. */
  #depth = 0;

  /** @param isOfLines each line is a separate JSON text, or none; strings never contain a newline */
  constructor(maxBytes: number, isOfLines = false) {
    this.#maxBytes = maxBytes;
    this.#isOfLines = isOfLines;
  }

  /** Returns the bytes to keep. */
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

  /** Not inside an escape or a multibyte character, whose continuation bytes begin with the bits 10. */
  #isBetweenCharacters(next = 0): boolean {
    return !this.#isEscaped && this.#digits === 0 && (next & 0xc0) !== 0x80;
  }
}
