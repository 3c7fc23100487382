import { type PageTarget, readPageTarget } from '../../page/target.ts';
import { INSTANCE_ID, INSTANCE_PREFIX, LIST_PATH, STATES_PATH } from '../../discovery/tailnet/peer-list.ts';

/** What a request addresses. */
export type RequestTarget =
  | { readonly kind: 'list' | 'states' }
  | PageTarget
  | {
      readonly kind: 'instance';
      readonly id: string;
      /** Below the instance, with a leading slash, as it was sent. */
      readonly path: string;
      /** With the question mark, or empty. */
      readonly query: string;
    };

/** Longer than any target of opencode's clients; their longest part is a directory. */
const MAX_TARGET_CHARS = 8192;

/** What a URL's path and query may hold unescaped (RFC 3986). */
const TARGET = /^\/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?[\]]*$/;

/** Undefined for an unknown target, and for an ambiguous one: it is refused rather than normalized. */
export function readTarget(target: string): RequestTarget | undefined {
  const plain = plainTarget(target);
  if (plain === undefined) return undefined;
  const { path, query } = plain;
  if (path === LIST_PATH) return { kind: 'list' };
  if (path === STATES_PATH) return { kind: 'states' };
  if (!path.startsWith(INSTANCE_PREFIX)) return readPageTarget(plain);
  const below = path.slice(INSTANCE_PREFIX.length);
  const slash = below.indexOf('/');
  const id = slash === -1 ? below : below.slice(0, slash);
  if (!INSTANCE_ID.test(id)) return undefined;
  return { kind: 'instance', id, path: slash === -1 ? '/' : below.slice(slash), query };
}

/** Path and query, as sent; undefined if the path has dot segments, escaped slashes or empty segments. */
export function plainTarget(target: string): { readonly path: string; readonly query: string } | undefined {
  if (target.length > MAX_TARGET_CHARS || !TARGET.test(target)) return undefined;
  const [path = '', ...rest] = target.split('?');
  // Only the last segment may be empty: a trailing slash.
  if (path.includes('//') || !path.slice(1).split('/').every(isPlain)) return undefined;
  return { path, query: rest.length === 0 ? '' : `?${rest.join('?')}` };
}

function isPlain(segment: string): boolean {
  let decoded: string;
  try {
    decoded = decodeURIComponent(segment);
  } catch {
    return false;
  }
  // oxlint-disable-next-line no-control-regex -- what no path may hold
  return decoded !== '.' && decoded !== '..' && !/[/\\\u0000-\u001f\u007f]/.test(decoded);
}
