/**
 * What the role `read` may request of opencode (1.18.10 to 1.18.33). An allowlist, since some routes read any file, give a shell or
 * reveal API keys, even by GET, and later versions may add more.
 */

export interface ReadRoute {
  readonly pattern: RegExp;
  /** Query names that are passed on; all others are dropped. */
  readonly query: readonly string[];
}

export interface ReadRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
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

export interface AllowedRead {
  /** For opencode: with the directory pinned, if it takes one. */
  readonly path: string;
  /** opencode answers for a session in that session's directory, which must be the instance's. */
  readonly session?: string;
  /** Allowed only while this session of an OpenCode 2 runs, since its directory is loaded then anyway. */
  readonly active?: string;
  /** The event stream of a whole OpenCode 2. */
  readonly isWholeStream?: true;
}

export type ReadDecision = AllowedRead | { readonly refusal: string };

/** The route of a request, its session, and the part of its query that is passed on. */
export function matchRoute<R extends ReadRoute>(
  routes: readonly R[],
  { method, path, query }: ReadRequest,
): { readonly route: R; readonly session: string | undefined; readonly query: URLSearchParams } | undefined {
  const route = method === 'GET' ? routes.find(({ pattern }) => pattern.test(path)) : undefined;
  if (route === undefined) return undefined;
  const kept = [...new URLSearchParams(query)].filter(([name]) => route.query.includes(name));
  return { route, session: route.pattern.exec(path)?.groups?.['session'], query: new URLSearchParams(kept) };
}

/** Whether the role `read` may send this request, and in what form. Pure. */
export function readRoute(request: ReadRequest, directory: string): ReadDecision {
  const match = matchRoute(ROUTES, request);
  if (match === undefined) {
    return {
      refusal:
        'Your role here is "read": health, sessions, messages, status, permissions, questions and events. Anything else needs the role "drive".',
    };
  }
  if (new URLSearchParams(request.query).getAll('directory').some((one) => one !== directory))
    return {
      refusal: `Your role here is "read", which sees the instance's own directory only; leave the parameter directory out.`,
    };
  const { session, query } = match;
  query.set('directory', directory);
  return { path: `${request.path}?${query.toString()}`, ...(session !== undefined && { session }) };
}
