import type { ServerResponse } from 'node:http';

import { messageIn } from '../model/advice.ts';
import { sentence } from '../base/plain-text.ts';
import { PAGE_HEADERS } from './assets.ts';
import { PageRefusal } from './contract.ts';
import { PAGE_WORDS } from './page-words.ts';

const MAX_ERROR_CHARS = 1_000;

/** What an error is to a browser. */
export function refusalOf(error: unknown): { readonly status: number; readonly text: string } {
  const { name = '' } = error instanceof Error ? error : {};
  const message = messageIn(PAGE_WORDS, error);
  const text = sentence(message, MAX_ERROR_CHARS);
  if (error instanceof PageRefusal) return { status: error.status, text: message };
  if (name === 'QueryError') return { status: 404, text };
  if (name === 'OperationError') return { status: 409, text };
  if (name === 'NotPossibleError') return { status: 422, text };
  if (name === 'UnreachableError') return { status: 503, text };
  if (name === 'RequestError') return { status: 502, text };
  if (name === 'CallOver') return { status: 504, text: `${text}; nothing was done after that.` };
  return { status: 500, text: 'The page failed here; the log of opencode-mcp says why.' };
}

export function answerJson(response: ServerResponse, status: number, value: object): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    ...PAGE_HEADERS,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    // A body that nobody read would be taken for the next request.
    ...(status >= 400 && { connection: 'close' }),
  });
  response.end(body);
}
