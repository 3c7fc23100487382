import type { ServerResponse } from 'node:http';

import { messageIn } from '../model/advice.ts';
import { sentence } from '../base/plain-text.ts';
import { PAGE_HEADERS } from './assets.ts';
import { PageRefusal } from './contract.ts';
import { PAGE_WORDS } from './page-words.ts';

const MAX_ERROR_CHARS = 1_000;

/** By error name, so that this module loads none of the rooms that throw them. */
const STATUSES: Readonly<Record<string, number>> = {
  QueryError: 404,
  OperationError: 409,
  NotPossibleError: 422,
  RequestError: 502,
  UnreachableError: 503,
  CallOver: 504,
};

/** An error as HTTP status and text for a person. */
export function refusalOf(error: unknown): { readonly status: number; readonly text: string } {
  const { name = '' } = error instanceof Error ? error : {};
  const message = messageIn(PAGE_WORDS, error);
  const text = sentence(message, MAX_ERROR_CHARS);
  if (error instanceof PageRefusal) return { status: error.status, text: message };
  const status = STATUSES[name];
  if (status === undefined) return { status: 500, text: 'The page failed here; see the log of opencode-mcp.' };
  return { status, text: status === 504 ? `${text}; nothing was done after that.` : text };
}

export function answerJson(response: ServerResponse, status: number, value: object): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    ...PAGE_HEADERS,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    // The unread body of a refused request would be parsed as the next request.
    ...(status >= 400 && { connection: 'close' }),
  });
  response.end(body);
}
