import type { Dialect } from '../../model/instance.ts';
import { matchRoute, type ReadDecision, type ReadRequest, type ReadRoute } from './read-routes.ts';

/**
 * Which routes of an OpenCode 2 each role may use. It accepts paths in any case and with escaped letters (seen on the preview), so
 * forbidden paths are compared the way it reads them.
 */

/**
 * They give out secrets that outlast a caller's right here: a code or cookie that replaces the service's password, API keys of model
 * providers, a token for another server. Everything else is open to `drive`, which equals a shell.
 */
const FORBIDDEN = /^\/(?:api\/(?:pair|credential|experimental\/voice)|auth)(?:\/|$)/i;

export const GIVES_SECRETS =
  'The node service does not pass on requests for passwords, cookies and keys: they would outlast your right here.';

/** Whether this path of an OpenCode 2 is refused to every role. Pure. */
export function givesSecrets(path: string): boolean {
  return FORBIDDEN.test(decoded(path));
}

function decoded(path: string): string {
  let text = path;
  // A router decodes once; paths that need more rounds are refused too.
  for (let round = 0; round < 8 && text.includes('%'); round += 1) {
    try {
      text = decodeURIComponent(text);
    } catch {
      break;
    }
  }
  return text;
}

/** Removes a credential from the query, which OpenCode prefers to the header. Leaves the rest as it was. */
export function withoutToken(query: string): string {
  const kept = query
    .slice(1)
    .split('&')
    .filter((pair) => ![...new URLSearchParams(pair).keys()].some((name) => /^auth_token/i.test(name)))
    .join('&');
  return kept === '' ? '' : `?${kept}`;
}

interface ServiceRoute extends ReadRoute {
  /** In 2.x too it loads the session's directory, which runs code there. */
  readonly loads?: true;
  /** The event stream of the whole service. */
  readonly isWholeStream?: true;
}

const SESSION = String.raw`/api/session/(?<session>ses[A-Za-z0-9_-]{1,125})`;
const SESSIONS = ['directory', 'parentID', 'search', 'limit', 'order', 'archived', 'cursor'];

/** Of both generations: the preview lacks `info`, `form` and `log`; 2.x lacks `health`, `question`, `event` and `history`. */
const ROUTES: readonly ServiceRoute[] = [
  { pattern: /^\/api\/info$/, query: [] },
  { pattern: /^\/api\/health$/, query: [] },
  { pattern: /^\/api\/event$/, query: [], isWholeStream: true },
  { pattern: /^\/api\/session$/, query: SESSIONS },
  { pattern: /^\/api\/session\/active$/, query: [] },
  { pattern: new RegExp(`^${SESSION}$`), query: [] },
  { pattern: new RegExp(`^${SESSION}/message$`), query: ['limit', 'order', 'cursor', 'type'] },
  { pattern: new RegExp(`^${SESSION}/message/msg[A-Za-z0-9_-]{1,125}$`), query: [] },
  { pattern: new RegExp(`^${SESSION}/(?:permission|form|question)$`), query: [], loads: true },
  { pattern: new RegExp(`^${SESSION}/(?:event|history)$`), query: ['after', 'limit'], loads: true },
  { pattern: new RegExp(SESSION.replace('/api/', '^/api/experimental/') + '/log$'), query: ['after', 'follow'] },
];

/** Whether the role `read` may send this request to an OpenCode 2, and in what form. Pure. */
export function readServiceRoute(request: ReadRequest, dialect: Dialect): ReadDecision {
  const match = matchRoute(ROUTES, request);
  if (match === undefined) {
    return {
      refusal:
        'Your role here is "read": info, sessions, messages, what runs, permissions, forms, logs and events. Anything else needs the role "drive".',
    };
  }
  const { route, session, query } = match;
  // In the preview every route below a session loads that session's directory.
  const loads = route.loads === true || dialect === 'opencode-2-preview';
  return {
    path: query.size === 0 ? request.path : `${request.path}?${query.toString()}`,
    ...(session !== undefined && loads && { active: session }),
    ...(route.isWholeStream && { isWholeStream: true }),
  };
}
