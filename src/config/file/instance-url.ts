import { badPortReason } from '../../base/bad-ports.ts';

export type CheckedUrl =
  | {
      /** Without a trailing slash. */
      readonly url: string;
      /** Requests cross a network without encryption. */
      readonly isExposed: boolean;
    }
  | { readonly problem: string };

/**
 * The URL of an instance, or of a channel, in its normal form, or what is wrong with it.
 *
 * @param instead where a user name and a password go, if not there
 */
export function checkInstanceUrl(text: string, instead = 'use the keys "username" and "password"'): CheckedUrl {
  // The parser would silently drop white space, and take `http:host` and `http:\\host` too.
  if (!/^https?:\/\/[^\s\\]+$/i.test(text)) return { problem: 'expected an http:// or https:// URL' };
  // Before anything is parsed: what looks like a password is named as one even where the rest is broken.
  if (text.includes('@')) return { problem: `expected a URL without user name and password; ${instead}` };
  if (text.includes('?') || text.includes('#')) return { problem: 'expected a URL without query and fragment' };
  if (!URL.canParse(text)) return { problem: 'expected an http:// or https:// URL' };
  const { protocol, hostname, port, origin, pathname } = new URL(text);
  const blocked = port === '' ? undefined : badPortReason(Number(port));
  if (blocked !== undefined) return { problem: blocked };
  return { url: origin + pathname.replace(/\/+$/, ''), isExposed: protocol === 'http:' && !isLoopback(hostname) };
}

/** A URL for an error text: without what may be a secret, which is the user info and the query. */
export function withoutSecrets(text: string): string {
  const [, scheme = '', rest = ''] = /^([a-z][a-z0-9+.-]*:\/\/)?(.*)$/is.exec(text) ?? [];
  const at = rest.lastIndexOf('@');
  return `${scheme}${at < 0 ? '' : '…@'}${rest.slice(at + 1).replace(/[?#].*$/s, '?…')}`;
}

function isLoopback(hostname: string): boolean {
  return (
    hostname === 'localhost' ||
    hostname.endsWith('.localhost') ||
    hostname === '[::1]' ||
    /^127\.\d+\.\d+\.\d+$/.test(hostname)
  );
}
