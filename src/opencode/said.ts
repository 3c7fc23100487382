import { fieldsOf } from '../base/errors.ts';
import { quoted } from '../base/plain-text.ts';

/** Enough to recognise an error. */
const MAX_SAID_CHARS = 300;

/** The message in an error that opencode answers as JSON (1.18.33), unbounded; undefined if there is none. */
export function wordsOf(error: unknown): string | undefined {
  const { name, data, message } = fieldsOf(error);
  const { message: inner, path, issues } = fieldsOf(data);
  // For a configuration file that does not parse, the message quotes all of it, API keys included, before the error.
  const parts = typeof inner === 'string' ? inner.split(/^--- Errors ---$/m) : [];
  const said = parts.length > 1 ? parts.at(-1)?.trim().split('\n', 1)[0] : inner;
  const wrong = Array.isArray(issues) ? issues.map(issueOf).join('; ') : '';
  const what = [said, wrong, message, name].find((one) => typeof one === 'string' && one !== '');
  if (typeof what !== 'string') return undefined;
  return typeof path === 'string' && !what.includes(path) ? `${path}: ${what}` : what;
}

/** Ends an error message. */
export function said(text: string): string {
  return `; it says ${quoted(text, MAX_SAID_CHARS)}`;
}

function issueOf(issue: unknown): string {
  const { path, message } = fieldsOf(issue);
  const where = Array.isArray(path) ? path.join('.') : '';
  return `${where === '' ? '' : `${where}: `}${String(message)}`;
}
