import { singleLine } from '../base/plain-text.ts';
import { AdvisedError } from '../model/advice.ts';

export { quoteName } from '../base/plain-text.ts';

const MAX_TITLE_CHARS = 100;

/** The result of an operation: the same information for programs and for people. */
export interface Answer<T> {
  readonly data: T;
  readonly text: string;
}

/** An operation that could not be done. The message says what was tried, on what, and what to do next. */
export class OperationError extends AdvisedError {
  override readonly name = 'OperationError';
}

/** A message was not sent, so that it may be sent again. */
export class NotSentError extends OperationError {}

/** A block of remote text in a fence that it cannot close: longer than any run of backticks inside. */
export function quoteBlock(text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}\n${text}${text.endsWith('\n') ? '' : '\n'}${fence}`;
}

/** A session as results name it. */
export function sessionRef({ id, title }: { readonly id: string; readonly title: string }): {
  id: string;
  title: string;
} {
  return { id, title: singleLine(title, MAX_TITLE_CHARS) };
}

/** `12 s`, `5 min`, `3 h`, `2 days`. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export interface CutText {
  readonly text: string;
  /** Present if `text` is not all: where it continues and how long the whole is, in characters. */
  readonly cut?: { readonly next_offset: number; readonly total: number };
}

/** The part of `text` from `offset` that fits in `limit` UTF-16 units; never half a surrogate pair. */
export function cutText(text: string, limit: number, offset = 0): CutText {
  const start = Math.min(offset, text.length);
  let end = Math.min(start + limit, text.length);
  const last = text.charCodeAt(end - 1);
  if (end < text.length && last >= 0xd800 && last <= 0xdbff) end -= 1;
  const part = text.slice(start, end);
  return end < text.length ? { text: part, cut: { next_offset: end, total: text.length } } : { text: part };
}
