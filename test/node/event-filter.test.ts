import { text } from 'node:stream/consumers';

import { expect, test } from 'vitest';

import { EventFilter } from '../../src/node/proxy/event-filter.ts';

const filtered = (...chunks: readonly (string | Buffer)[]): Promise<string> => {
  const filter = new EventFilter();
  for (const chunk of chunks) filter.write(chunk);
  filter.end();
  return text(filter);
};
const data = (event: object): string => `data: ${JSON.stringify(event)}\n\n`;

const SESSION = data({ id: 'evt_1', type: 'session.text.delta', data: { sessionID: 'ses_1', delta: 'grüße' } });

test.each([
  ['an event of a session', SESSION],
  ['an event of the preview', data({ type: 'session.next.step.started', data: { sessionID: 'ses_1' } })],
  ['a permission', data({ type: 'permission.v2.asked', data: { id: 'per_1', sessionID: 'ses_1' } })],
  ['a form, which contains its session', data({ type: 'form.created', data: { form: { sessionID: 'ses_1' } } })],
  ['an event of a directory', data({ type: 'session.viewed', location: { directory: '/a' }, data: {} })],
  ['a heartbeat', ': heartbeat\n\n'],
])('passes on %s', async (_, event) => {
  expect(await filtered(event)).toBe(event);
});

test.each([
  ['an event without a session or directory', data({ type: 'session.usage.updated', data: {} })],
  ['an event of the server', data({ type: 'server.connected', data: {} })],
  ['an event of a terminal', data({ type: 'pty.created', location: { directory: '/a' }, data: { info: {} } })],
  ['an event about keys', data({ type: 'credential.updated', data: { sessionID: 'ses_1' } })],
  ['an event that is not JSON', 'data: session.text.delta sessionID\n\n'],
  ['an unfinished event', `data: ${JSON.stringify({ type: 'session.x', data: { sessionID: 'ses_1' } })}`],
])('drops %s', async (_, event) => {
  expect(await filtered(event)).toBe('');
});

test('parses events across chunks and with any line end', async () => {
  const whole = Buffer.from(
    SESSION.replaceAll('\n', '\r\n') + data({ type: 'mcp.status', data: {} }) + SESSION + ': heartbeat\n\n',
  );
  const bytes = Array.from(whole, (byte) => Buffer.from([byte]));
  expect(await filtered(...bytes)).toBe(`${SESSION}${SESSION}: heartbeat\n\n`);
});

test('fails on an event that does not end', async () => {
  await expect(filtered(`data: ${'x'.repeat(17 * 1024 * 1024)}`, '\ndata: y')).rejects.toThrow(
    /an event has more than/,
  );
});
