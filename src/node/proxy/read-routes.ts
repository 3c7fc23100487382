/**
 * What the role `read` may ask of opencode (1.18.10 to 1.18.33): an allowlist, since opencode has routes that read any file,
 * give a shell or tell API keys, also by GET, and a later version may have more.
 */

interface ReadRoute {
  readonly pattern: RegExp;
  /** Query names that go through; all others are dropped. */
  readonly query: readonly string[];
}

const SESSION = String.raw`/session/(?<session>ses[A-Za-z0-9_]{1,125})`;

const ROUTES: readonly ReadRoute[] = [
  { pattern: /^\/global\/health$/, query: [] },
  { pattern: /^\/path$/, query: [] },
  { pattern: /^\/event$/, query: [] },
  { pattern: /^\/permission$/, query: [] },
  { pattern: /^\/question$/, query: [] },
  { pattern: /^\/session$/, query: ['roots', 'start', 'search', 'limit'] },
  { pattern: /^\/session\/status$/, query: [] },
  { pattern: new RegExp(`^${SESSION}$`), query: [] },
  { pattern: new RegExp(`^${SESSION}/message$`), query: ['limit', 'before'] },
  { pattern: new RegExp(`^${SESSION}/message/msg[A-Za-z0-9_]{1,125}$`), query: [] },
];

export type ReadDecision =
  | {
      /** To send to opencode, with the directory pinned. */
      readonly path: string;
      /** opencode answers for a session in the session's own directory, so that must be the instance's. */
      readonly session?: string;
    }
  | { readonly refusal: string };

/** Whether the role `read` may make this request, and as what it is sent. Pure. */
export function readRoute(
  { method, path, query }: { readonly method: string; readonly path: string; readonly query: string },
  directory: string,
): ReadDecision {
  const match = ROUTES.map((route) => ({ route, found: route.pattern.exec(path) })).find(({ found }) => found !== null);
  if (method !== 'GET' || match === undefined) {
    return {
      refusal:
        'Your role here is "read": health, sessions, messages, status, permissions, questions and events. Anything else needs the role "drive".',
    };
  }
  const asked = new URLSearchParams(query);
  if (asked.getAll('directory').some((one) => one !== directory))
    return {
      refusal: `Your role here is "read", which sees the instance's own directory only; leave the parameter directory out.`,
    };
  const kept = new URLSearchParams([...asked].filter(([name]) => match.route.query.includes(name)));
  kept.set('directory', directory);
  const session = match.found?.groups?.['session'];
  return { path: `${path}?${kept.toString()}`, ...(session !== undefined && { session }) };
}
