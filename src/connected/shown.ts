import { singleLine } from '../base/plain-text.ts';

/** A path, a name or a reason that is longer says nothing more. */
export const MAX_SHOWN_CHARS = 300;

/** Text that may come from elsewhere, on one bounded line and safe to show. */
export function shown(text: string): string {
  return singleLine(text, MAX_SHOWN_CHARS);
}
