import { describe, expect, test } from 'vitest';

import { QueryError, UnreachableError } from '../../src/fleet/fleet.ts';
import type { Logger } from '../../src/base/log.ts';
import { toolError } from '../../src/mcp/tools/tool-error.ts';
import { OperationError } from '../../src/operations/answer.ts';
import { RequestError } from '../../src/http/exchange.ts';

interface Logged {
  readonly level: string;
  readonly message: string;
}

function reportError(error: unknown): { text: string; logged: Logged[] } {
  const logged: Logged[] = [];
  const logger: Logger = { log: (level, message) => void logged.push({ level, message }) };
  return { text: toolError('read', error, logger), logged };
}

describe('the text of a failed call', () => {
  test.each([
    new OperationError('Nothing runs on alpha, so there is nothing to abort; get_status shows what it does.'),
    new QueryError('No instance fits "nobody". Known instances: alpha (laptop, idle).'),
    new UnreachableError('alpha cannot be reached: ECONNREFUSED; call instances to see how it is.'),
  ])('$name is shown unchanged, and not logged', (error) => {
    expect(reportError(error)).toEqual({ text: error.message, logged: [] });
  });

  test('a failed request names the tool, the request, and the next call', () => {
    const { text, logged } = reportError(
      new RequestError('timeout', 'GET http://127.0.0.1:4096/session: no complete answer within 15000 ms'),
    );
    expect(text).toBe(
      'read failed: GET http://127.0.0.1:4096/session: no complete answer within 15000 ms. Call instances to see how the instance is, then try again.',
    );
    expect(logged).toEqual([]);
  });

  test('an unexpected answer is logged once, with route and field', () => {
    const error = new RequestError('malformed', 'GET /api/session: unexpected answer at data.0.time: expected object');
    expect(reportError(error).logged).toMatchObject([{ level: 'warn' }]);
    expect(reportError(error).logged).toEqual([]);
    expect(reportError(new RequestError('malformed', 'GET /api/agent: the body is not JSON')).logged).toHaveLength(1);
  });

  test('an unexpected error is reported as a bug, with its stack only in the log', () => {
    const error = new TypeError("Cannot read properties of undefined (reading 'id')");
    const { text, logged } = reportError(error);
    expect(text).toMatch(
      /^read failed inside opencode-mcp: Cannot read properties of undefined .*a bug worth reporting/,
    );
    expect(text).not.toContain('tool-error.test.ts');
    expect(logged).toMatchObject([{ level: 'error', message: expect.stringContaining('tool-error.test.ts') }]);
  });

  test.each([
    ['a string', 'oops'],
    ['nothing', undefined],
    ['an object', { toString: (): string => 'oops' }],
  ])('a thrown value that is not an error, %s, is shown too', (_, thrown) => {
    expect(reportError(thrown).text).toBe(`read failed: ${String(thrown)}`);
  });

  test.each([
    ['an expected error', (message: string) => new OperationError(message)],
    ['a request error', (message: string) => new RequestError('broken', message)],
    ['an unexpected error', (message: string) => new Error(message)],
    ['a thrown string', (message: string) => message],
  ])('remote text in %s is one line, clean, and bounded', (_, make) => {
    const { text } = reportError(make(`first\nsecond\u001b[2J\u202e\r${'x'.repeat(100_000)}`));
    // oxlint-disable-next-line no-control-regex -- they must not be there
    expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
    expect(text).toContain('first second');
    expect(text.length).toBeLessThan(4_200);
  });
});
