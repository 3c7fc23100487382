import { expect, onTestFinished, test } from 'vitest';

import { RequestError } from '../../src/http/request-error.ts';

import { type CallName, CALLS, opencode1Api } from '../../src/opencode/dialects/opencode-1.ts';
import { listenHttp } from '../rig/http-listener.ts';

const REFUSAL = 'Your role here is "read". Anything else needs the role "drive".';

async function apiOf(status: number, headers: Record<string, string>, body: string) {
  const { url, close } = await listenHttp((request, response) => {
    request.resume();
    response.writeHead(status, headers).end(body);
  });
  onTestFinished(close);
  return opencode1Api({ endpoint: { url, route: 'tailnet' } });
}

test.each([
  [
    'the plain text of a node service',
    'text/plain',
    `${REFUSAL}\n\u001b[31m\u202e`,
    `HTTP 403; it says "${REFUSAL.replaceAll('"', "'")}"`,
  ],
  ["opencode's own error", 'application/json', '{"name":"Bad","data":{"message":"no"}}', 'HTTP 403; it says "no"'],
  ['no message from a web page', 'text/plain', '\n<html><body>Denied</body></html>', 'HTTP 403'],
  ['no message from an empty body', 'text/plain', '', 'HTTP 403'],
])('the error of a refused call quotes the server’s message: %s', async (_, type, body, expectedReason) => {
  const api = await apiOf(403, { 'content-type': type }, body);
  const message = `POST /session/:id/abort: ${expectedReason}`;
  await expect(api.abort('ses_1')).rejects.toMatchObject({ kind: 'status', message });
});

const PAGE = '<html><body>Gateway Time-out</body></html>';

test.each<[string, number, Record<string, string>, string]>([
  ['a web page', 504, { 'content-type': 'text/html' }, PAGE],
  ['a web page with a charset', 502, { 'content-type': 'text/html; charset=utf-8' }, PAGE],
  ['a web page with status 404', 404, { 'content-type': 'text/html' }, PAGE],
  ['a web page that is a success', 200, { 'content-type': 'text/html' }, PAGE],
  ['damaged JSON', 200, { 'content-type': 'application/json' }, '{"id":"ses_1","ti'],
  ['damaged JSON of an error', 500, { 'content-type': 'application/json' }, '{"name":'],
  ['an empty success', 200, {}, ''],
  ['an empty success of JSON', 200, { 'content-type': 'application/json' }, ''],
  ['a success whose status excludes a body', 205, {}, ''],
  ['an unknown status', 777, { 'content-type': 'text/html' }, PAGE],
])('every call rejects with a RequestError if the answer is not JSON: %s', async (_, status, headers, body) => {
  const api = await apiOf(status, headers, body);
  const calls = Object.keys(CALLS) as CallName[];
  const results = await Promise.allSettled(
    calls.map((name) => (api[name] as (...args: unknown[]) => Promise<unknown>)('ses_1', {}, [])),
  );
  for (const [index, result] of results.entries()) {
    expect(result.status === 'rejected' && result.reason, calls[index]).toBeInstanceOf(RequestError);
  }
});
