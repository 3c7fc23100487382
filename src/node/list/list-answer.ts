import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ListFeed, ListState } from './list-feed.ts';
import { refuse } from '../proxy/proxy.ts';
import { AWAY, type Refusal } from '../access/request-guard.ts';

/** Below the 30 s after which proxies and NAT drop a silent connection. */
const MAX_WAIT_S = 25;

export interface ListAnswerDeps {
  readonly feed: Pick<ListFeed, 'now' | 'next'>;
  /** Identifies the caller again; undefined if they may still see the list. */
  readonly admitAgain: () => Promise<Refusal | undefined>;
  /** Aborts when the caller goes. */
  readonly signal: AbortSignal;
}

/**
 * Answers with the list and its entity tag. If the caller already has it (`If-None-Match`), the answer is 304; with
 * `Prefer: wait=<seconds>` (RFC 7240) the request is held until the list changes or the time is over. After a wait the caller is
 * identified again before anything is sent.
 */
export async function answerList(
  request: IncomingMessage,
  response: ServerResponse,
  { feed, admitAgain, signal }: ListAnswerDeps,
): Promise<void> {
  if (request.method !== 'GET') {
    refuse(response, { status: 405, text: 'The list is read with GET.' });
    return;
  }
  const isKnown = knownBy(request.headersDistinct['if-none-match'] ?? []);
  const waitS = waitOf(request.headersDistinct['prefer'] ?? []);
  let state = await feed.now();
  const waits = state !== undefined && isKnown(state) && waitS > 0;
  if (waits) {
    state = await feed.next(isKnown, waitS * 1000, signal);
    // The caller is gone or was cut; `signal` may abort a little after the wait ends.
    if (signal.aborted || request.socket.destroyed) return;
    const refusal = await admitAgain();
    if (refusal !== undefined) {
      refuse(response, refusal);
      return;
    }
  }
  if (state === undefined) refuse(response, AWAY);
  else send(response, state, isKnown(state), waits ? { 'preference-applied': `wait=${waitS}` } : {});
}

function send(
  response: ServerResponse,
  { body, etag }: ListState,
  isKnown: boolean,
  more: Readonly<Record<string, string>>,
): void {
  const headers = { etag, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', ...more };
  if (isKnown) {
    response.writeHead(304, headers).end();
    return;
  }
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

/** `If-None-Match` (RFC 9110, 13.1.2): `*`, or entity tags, compared weakly. */
function knownBy(values: readonly string[]): (state: ListState) => boolean {
  const text = values.join(',');
  if (text.trim() === '*') return () => true;
  const tags = new Set(text.match(/"[^"]*"/g));
  return ({ etag }) => tags.has(etag);
}

/** The seconds of the first `Prefer: wait=…` (RFC 7240, 2), or 0. */
function waitOf(values: readonly string[]): number {
  for (const preference of values.join(',').split(',')) {
    const seconds = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;|$)/i.exec(preference)?.[1];
    if (seconds !== undefined) return Math.min(Number(seconds), MAX_WAIT_S);
  }
  return 0;
}
