import { PassThrough } from 'node:stream';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { CleanStdio } from '../../src/mcp/clean-stdio.ts';
import { HANDSHAKE } from './raw-server.ts';
import { enveloped, ModernClient } from './modern/modern-client.ts';

const LARGE = 10 * 1024 * 1024;

/** The messages that the reader emits for these pieces. */
function read(pieces: readonly Buffer[]): unknown[] {
  const input = new PassThrough();
  const reader = new CleanStdio(input, new PassThrough());
  const messages: unknown[] = [];
  reader.start({ onMessage: (message) => messages.push(message), onTooLong: () => {} });
  for (const piece of pieces) input.emit('data', piece);
  reader.close();
  return messages;
}

/** Splits `whole` at the offsets `places`. */
function cut(whole: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...places.map((place) => place % (whole.length + 1)), whole.length].toSorted(
    (one, other) => one - other,
  );
  return ends.map((end, index) => whole.subarray(ends[index - 1] ?? 0, end));
}

const id = fc.oneof(fc.integer(), fc.string());
const method = fc.constantFrom('initialize', 'tools/list', 'server/discover', 'notifications/cancelled', 'ping');
const bare = fc.record({ jsonrpc: fc.constant('2.0'), id, method });
const modern = fc.record({ jsonrpc: fc.constant('2.0'), id, method, params: fc.constant(enveloped()) });
const lines = fc.array(
  fc.oneof(
    fc.oneof(bare, modern).map((message) => JSON.stringify(message)),
    // Garbage without a line feed: a line feed would split it.
    fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\n', '')),
    fc.constantFrom('', '\r', '{"jsonrpc":"2.0","id":1', '[]', 'null', '\u2028', '{"a":"\u2028"}'),
  ),
  { maxLength: 20 },
);

/** The JSON value of a line, or its text if it is not JSON. */
function parseLine(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return line;
  }
}

describe('the reader', () => {
  test('emits each complete line once and in order, however its bytes are split', () => {
    const property = fc.property(lines, fc.string(), fc.array(fc.nat(), { maxLength: 12 }), (all, half, places) => {
      const rest = half.replaceAll('\n', '');
      const whole = Buffer.from([...all, rest].join('\n'));
      // Lone surrogates are not UTF-8, so the bytes decide.
      const expected = whole.toString('utf8').split('\n').slice(0, -1).map(parseLine);
      expect(read(cut(whole, places))).toEqual(expected);
    });
    fc.assert(property, { numRuns: 300 });
  });

  test('reads the lines after a 10 MB line that arrives in pieces', () => {
    const large = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'x', params: { text: 'ä'.repeat(LARGE / 2 - 100) } });
    const whole = Buffer.from(`${large}\nnoise\n{"id":2}\n`);
    const pieces = Array.from({ length: Math.ceil(whole.length / 65_536) }, (_, index) =>
      whole.subarray(index * 65_536, (index + 1) * 65_536),
    );
    expect(read(pieces).slice(1)).toEqual(['noise', { id: 2 }]);
    expect(read(pieces)[0]).toMatchObject({ id: 1 });
  });
});

test("null means a missing field in a client's capabilities and in its answers", () => {
  const client = { capabilities: { roots: null, elicitation: { form: {}, url: null } }, clientInfo: { title: null } };
  const answer = { action: 'accept', content: { decision: 'once', feedback: null }, _meta: null };
  const lines = [
    { jsonrpc: '2.0', id: 0, method: 'initialize', params: client },
    { jsonrpc: '2.0', id: 1, result: answer },
    { jsonrpc: '2.0', id: 2, result: { action: 'decline', content: null } },
  ];
  const messages = read(lines.map((line) => Buffer.from(`${JSON.stringify(line)}\n`)));
  expect(messages).toMatchObject([
    { params: { capabilities: { elicitation: { form: {} } }, clientInfo: {} } },
    { result: { action: 'accept', content: { decision: 'once' } } },
    { result: { action: 'decline' } },
  ]);
  expect(JSON.stringify(messages)).not.toContain('null');
});

/** Makes a message of each kind; only requests have the `id`. */
const KINDS: Readonly<Record<string, (id: number) => object | string>> = {
  'a request of the older version': (id) => ({ jsonrpc: '2.0', id, method: 'ping' }),
  'a request without an envelope': (id) => ({ jsonrpc: '2.0', id, method: 'prompts/list' }),
  'a modern request': (id) => ({ jsonrpc: '2.0', id, method: 'server/discover', params: enveloped() }),
  'a large request': (id) => ({
    jsonrpc: '2.0',
    id,
    method: 'nothing',
    params: enveloped({ x: 'x'.repeat(100_000) }),
  }),
  'a notification': () => ({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 424242 } }),
  garbage: () => '{"jsonrpc":"2.0","id":\u0000 \u001b[2J',
};

test('each request gets its answer in any mix of both protocol versions, garbage and split lines', async () => {
  await using client = new ModernClient();
  const { server } = client;
  server.write(...HANDSHAKE);
  await server.answerTo(0);
  const kinds = fc.array(fc.constantFrom(...Object.values(KINDS)), { minLength: 1, maxLength: 12 });
  const property = fc.asyncProperty(kinds, fc.array(fc.nat(), { maxLength: 6 }), async (all, places) => {
    const messages = all.map((make) => make(client.nextId()));
    const lines = messages.map((one) => `${typeof one === 'string' ? one : JSON.stringify(one)}\n`);
    for (const piece of cut(Buffer.from(lines.join('')), places)) server.writeBytes(piece);
    for (const message of messages) {
      if (typeof message === 'string' || !('id' in message)) continue;
      const { result, error } = await server.answerTo(Number(message.id));
      expect(result ?? error).toBeDefined();
    }
  });
  await fc.assert(property, { numRuns: 30 });
  const answers = server.stdout.flatMap((line) => (JSON.parse(line) as { id?: number }).id ?? []);
  expect(new Set(answers).size).toBe(answers.length);
});
