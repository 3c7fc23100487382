import type { ServerResponse } from 'node:http';

/** The files by name, defined by the build; unbundled source reads the folder. */
declare const __PAGE_ASSETS__: Readonly<Record<string, string>> | undefined;

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

/** Headers of every answer of the page. */
export const PAGE_HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
} as const;

/** Nothing from another origin and nothing inline, so that remote text stays text even if the page has a bug. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Answers with one of the page's files, which hold no data. */
export async function answerFile(response: ServerResponse, name: string, isHead: boolean): Promise<void> {
  const text = await pageFile(name);
  response.writeHead(200, {
    ...PAGE_HEADERS,
    'content-type': TYPES[name.split('.').at(-1) ?? ''] ?? 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'content-security-policy': POLICY,
  });
  response.end(isHead ? undefined : text);
}

async function pageFile(name: string): Promise<string> {
  if (typeof __PAGE_ASSETS__ === 'object') return __PAGE_ASSETS__[name] ?? '';
  const { readFile } = await import('node:fs/promises');
  return await readFile(new URL(`assets/${name}`, import.meta.url), 'utf8');
}
