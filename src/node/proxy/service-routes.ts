import type { Dialect } from '../../model/instance.ts';

/**
 * What of an OpenCode 2 goes through to whom. It takes paths in any case and with escaped letters (seen on the preview), so that
 * what nobody may ask is compared as it reads them.
 */

/**
 * They hand out what lasts longer than a right here: a code or a cookie that stands for the service's password, the keys of model
 * providers, a token for another server. All else is for who may drive, which equals a shell.
 */
const FOR_NOBODY = /^\/(?:api\/(?:pair|credential|experimental\/voice)|auth)(?:\/|$)/i;

export const NOBODYS =
  'The node service passes nothing on that gives out a password, a cookie or a key: what it gave would outlast your right here.';

/** Whether nobody may ask for this path of an OpenCode 2. Pure. */
export function isForNobody(path: string): boolean {
  return FOR_NOBODY.test(decoded(path));
}

function decoded(path: string): string {
  let text = path;
  // A router decodes once; what it would find after more rounds is refused too.
  for (let round = 0; round < 8 && text.includes('%'); round += 1) {
    try {
      text = decodeURIComponent(text);
    } catch {
      break;
    }
  }
  return text;
}

/** A query without the credential that it may hold: with OpenCode it goes before the header. Keeps all else as it was. */
export function withoutToken(query: string): string {
  const kept = query
    .slice(1)
    .split('&')
    .filter((pair) => ![...new URLSearchParams(pair).keys()].some((name) => /^auth_token/i.test(name)))
    .join('&');
  return kept === '' ? '' : `?${kept}`;
}

interface ServiceRoute {
  readonly pattern: RegExp;
  /** Query names that go through; all others are dropped. */
  readonly query: readonly string[];
  /** Of 2.x too it loads the session's directory, which runs what lies there. */
  readonly loads?: true;
  /** A stream of events of the whole service. */
  readonly isEverybodys?: true;
}

const SESSION = String.raw`/api/session/(?<session>ses[A-Za-z0-9_-]{1,125})`;
const SESSIONS = ['directory', 'parentID', 'search', 'limit', 'order', 'archived', 'cursor'];

/** Of both: the preview has no `info`, `form` and `log`, and 2.x no `health`, `question`, `event` and `history`. */
const ROUTES: readonly ServiceRoute[] = [
  { pattern: /^\/api\/info$/, query: [] },
  { pattern: /^\/api\/health$/, query: [] },
  { pattern: /^\/api\/event$/, query: [], isEverybodys: true },
  { pattern: /^\/api\/session$/, query: SESSIONS },
  { pattern: /^\/api\/session\/active$/, query: [] },
  { pattern: new RegExp(`^${SESSION}$`), query: [] },
  { pattern: new RegExp(`^${SESSION}/message$`), query: ['limit', 'order', 'cursor', 'type'] },
  { pattern: new RegExp(`^${SESSION}/message/msg[A-Za-z0-9_-]{1,125}$`), query: [] },
  { pattern: new RegExp(`^${SESSION}/(?:permission|form|question)$`), query: [], loads: true },
  { pattern: new RegExp(`^${SESSION}/(?:event|history)$`), query: ['after', 'limit'], loads: true },
  { pattern: new RegExp(SESSION.replace('/api/', '^/api/experimental/') + '/log$'), query: ['after', 'follow'] },
];

export type ServiceDecision =
  | {
      /** To send to the service. */
      readonly path: string;
      /** Only while that session runs: what runs has its directory loaded already. */
      readonly active?: string;
      readonly isEverybodys?: true;
    }
  | { readonly refusal: string };

/** Whether the role `read` may make this request of an OpenCode 2, and as what it is sent. Pure. */
export function readServiceRoute(
  { method, path, query }: { readonly method: string; readonly path: string; readonly query: string },
  dialect: Dialect,
): ServiceDecision {
  const match = ROUTES.map((route) => ({ route, found: route.pattern.exec(path) })).find(({ found }) => found !== null);
  if (method !== 'GET' || match === undefined) {
    return {
      refusal:
        'Your role here is "read": info, sessions, messages, what runs, permissions, forms, logs and events. Anything else needs the role "drive".',
    };
  }
  const { route, found } = match;
  const kept = new URLSearchParams([...new URLSearchParams(query)].filter(([name]) => route.query.includes(name)));
  const session = found?.groups?.['session'];
  // Of the preview every route below a session loads that session's directory.
  const loads = route.loads === true || dialect === 'opencode-2-preview';
  return {
    path: kept.size === 0 ? path : `${path}?${kept.toString()}`,
    ...(session !== undefined && loads && { active: session }),
    ...(route.isEverybodys && { isEverybodys: true }),
  };
}
