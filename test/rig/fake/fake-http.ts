import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

import { give, WEB_PAGE } from '../answer.ts';
import { ANSWERS } from './fake-answers.ts';

/** The routes of a fake opencode, and their overrides. */

export type FakeRoute = keyof typeof ANSWERS;
export const FAKE_ROUTES = Object.keys(ANSWERS) as readonly FakeRoute[];

/** What a route does instead of its normal answer. */
export type Override =
  /** Accepts the request and never answers. */
  | { readonly kind: 'hang' }
  /** Sends the normal answer after `ms`. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** An object body is sent as JSON, a string unchanged. */
  | {
      readonly kind: 'answer';
      readonly status?: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: unknown;
    }
  /** 200 and JSON that never ends. */
  | { readonly kind: 'endless' }
  /** opencode's answer to an unknown path: 200 and a web page. */
  | { readonly kind: 'html' }
  | { readonly kind: 'redirect'; readonly to: string };

interface FoundRoute {
  readonly route: FakeRoute;
  readonly params: Readonly<Record<string, string>>;
}

const PATTERNS = FAKE_ROUTES.map((route) => {
  const [method = '', path = ''] = route.split(' ');
  return { route, method, pattern: new RegExp(`^${path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}$`) };
});

export function findRoute(method: string, path: string): FoundRoute | undefined {
  for (const { route, method: routeMethod, pattern } of PATTERNS) {
    const match = routeMethod === method ? pattern.exec(path) : undefined;
    if (match) return { route, params: match.groups ?? {} };
  }
  return undefined;
}

/** Resolves to true if the caller must still send the route's normal answer. */
export async function play(override: Override, incoming: IncomingMessage, response: ServerResponse): Promise<boolean> {
  if (override.kind === 'delay') {
    await delay(override.ms);
    return true;
  }
  incoming.resume();
  if (override.kind === 'html') give(response, WEB_PAGE);
  else if (override.kind === 'redirect') give(response, { status: 302, headers: { location: override.to } });
  else if (override.kind === 'answer') give(response, { ...override, status: override.status ?? 200 });
  else if (override.kind === 'endless') writeEndlessJson(response);
  return false;
}

/** Writes JSON as fast as the client reads, until it disconnects. */
function writeEndlessJson(response: ServerResponse): void {
  const chunk = 'x'.repeat(16_384);
  const writeMore = (): void => {
    while (!response.destroyed && response.write(chunk));
    if (!response.destroyed) response.once('drain', writeMore);
  };
  response.writeHead(200, { 'content-type': 'application/json' });
  response.write('["');
  writeMore();
}
