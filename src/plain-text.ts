/**
 * Makes text that came from another machine safe to show. What is left can neither steer a
 * terminal, nor reorder or hide characters, nor carry text that only a model reads.
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
