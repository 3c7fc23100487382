import { PAGE_PREFIX } from './contract.ts';

/** The page's files, by path. */
export const PAGE_FILES: ReadonlyMap<string, string> = new Map([
  ['/', 'index.html'],
  ...[
    'app.css',
    'app.js',
    'ask-list.js',
    'asks.js',
    'changes.js',
    'composer.js',
    'elements.js',
    'fleet.js',
    'icon.svg',
    'lines.js',
    'session.js',
    'talk.js',
    'transcript.js',
  ].map((name) => [PAGE_PREFIX + name, name] as const),
]);

const DATA = ['fleet', 'session', 'changes', 'respond', 'send', 'abort'] as const;
export type PageData = (typeof DATA)[number];

/** What a request to the page is for. */
export type PageTarget =
  | { readonly kind: 'page'; readonly file: string }
  | { readonly kind: 'page'; readonly data: PageData; readonly query: string };

/** Undefined if the path is not of the page. */
export function readPageTarget({
  path,
  query,
}: {
  readonly path: string;
  /** With the question mark, or empty. */
  readonly query: string;
}): PageTarget | undefined {
  const file = PAGE_FILES.get(path);
  if (file !== undefined) return { kind: 'page', file };
  const data = DATA.find((name) => path === `${PAGE_PREFIX}v1/${name}`);
  return data && { kind: 'page', data, query };
}
