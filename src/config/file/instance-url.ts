import * as z from 'zod';
import { quote } from '../quote.ts';
import { badPortReason, isLoopbackHost, urlHost } from '../../base/urls.ts';

export interface CheckedUrl {
  /** Without a trailing slash. */
  readonly url: string;
  /** Requests cross a network without encryption. */
  readonly isExposed: boolean;
}

/** The URL of an instance or a channel. `instead` is where a user name and a password belong. */
export function urlSchema(instead: string): z.ZodType<CheckedUrl> {
  return z.string({ error: 'a string' }).transform((text, issues) => {
    const checked = checkUrl(text, instead);
    if (!('problem' in checked)) return checked;
    issues.addIssue(`${checked.problem}; got ${quote(withoutSecrets(text))}`);
    return z.NEVER;
  });
}

/** Normalises a URL, or reports what is wrong with it. */
export function checkUrl(text: string, instead: string): CheckedUrl | { readonly problem: string } {
  // The parser silently drops white space and accepts `http:host` and `http:\\host`.
  if (!/^https?:\/\/[^\s\\]+$/i.test(text)) return { problem: 'expected an http:// or https:// URL' };
  // Before parsing: a password in the URL is reported even if the rest is broken.
  if (text.includes('@')) return { problem: `expected a URL without user name and password; ${instead}` };
  if (text.includes('?') || text.includes('#')) return { problem: 'expected a URL without query and fragment' };
  if (!URL.canParse(text)) return { problem: 'expected an http:// or https:// URL' };
  const { protocol, port, origin, pathname } = new URL(text);
  const blocked = port === '' ? undefined : badPortReason(Number(port));
  if (blocked !== undefined) return { problem: blocked };
  const host = urlHost(text);
  const isLoopback = isLoopbackHost(host) || host.endsWith('.localhost');
  return { url: origin + pathname.replace(/\/+$/, ''), isExposed: protocol === 'http:' && !isLoopback };
}

/** A URL for an error text, without user info and query, which may be secrets. */
export function withoutSecrets(text: string): string {
  const [, scheme = '', rest = ''] = /^([a-z][a-z0-9+.-]*:\/\/)?(.*)$/is.exec(text) ?? [];
  const at = rest.lastIndexOf('@');
  return `${scheme}${at < 0 ? '' : '…@'}${rest.slice(at + 1).replace(/[?#].*$/s, '?…')}`;
}
