import { singleLine } from '../base/plain-text.ts';

const SHOWN_CHARACTERS = 80;

// Characters that JSON does not escape, and that a terminal interprets or draws as nothing.
const INVISIBLE = /[\u007f-\u009f\u2028\u2029\p{Default_Ignorable_Code_Point}\p{Bidi_Control}]/gu;

/** A value for an error text: quoted, on one line, bounded, invisible characters escaped. Never for secrets. */
export function quote(text: string): string {
  const shown = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
  return JSON.stringify(shown).replace(INVISIBLE, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

/** Whether `text` has line breaks, or control, bidi or invisible characters. */
export function hasUnsafeCharacters(text: string): boolean {
  return singleLine(text, Infinity) !== text;
}

/** A path in a sentence. */
export function shownPath(path: string): string {
  return singleLine(path, 400);
}
