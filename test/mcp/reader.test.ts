import { PassThrough } from 'node:stream';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { CleanStdio } from '../../src/mcp/clean-stdio.ts';
import { HANDSHAKE } from './raw-server.ts';
import { enveloped, ModernClient } from './modern/modern-client.ts';

const LARGE = 10 * 1024 * 1024;

/** The messages that the reader makes of these pieces. */
function read(pieces: readonly Buffer[]): unknown[] {
  const input = new PassThrough();
  const reader = new CleanStdio(input, new PassThrough());
  const messages: unknown[] = [];
  reader.start({ onMessage: (message) => messages.push(message), onTooLong: () => {} });
  for (const piece of pieces) input.emit('data', piece);
  reader.close();
  return messages;
}

/** Splits it at these offsets. */
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
    // Garbage without a line feed: with one it is two lines.
    fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\n', '')),
    fc.constantFrom('', '\r', '{"jsonrpc":"2.0","id":1', '[]', 'null', '\u2028', '{"a":"\u2028"}'),
  ),
  { maxLength: 20 },
);

/** The value of a line, without the reader's normalization. */
function meaning(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return line;
  }
}

describe('the reader', () => {
  test('passes on each complete line once and in order, however its bytes are split', () => {
    const property = fc.property(lines, fc.string(), fc.array(fc.nat(), { maxLength: 12 }), (all, half, places) => {
      const rest = half.replaceAll('\n', '');
      const whole = Buffer.from([...all, rest].join('\n'));
      // Lone surrogates are not UTF-8, so the bytes decide.
      const expected = whole.toString('utf8').split('\n').slice(0, -1).map(meaning);
      expect(read(cut(whole, places))).toEqual(expected);
    });
    fc.assert(property, { numRuns: 300 });
  });

  test('reads on correctly after a line of 10 MB in pieces', () => {
    const large = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'x', params: { text: 'ä'.repeat(LARGE / 2 - 100) } });
    const whole = Buffer.from(`${large}\nnoise\n{"id":2}\n`);
    const pieces = Array.from({ length: Math.ceil(whole.length / 65_536) }, (_, index) =>
      whole.subarray(index * 65_536, (index + 1) * 65_536),
    );
    expect(read(pieces).slice(1)).toEqual(['noise', { id: 2 }]);
    expect(read(pieces)[0]).toMatchObject({ id: 1 });
  });
});

test('any mix of both eras, garbage and split lines: each request gets its answer', async () => {
  await using client = new ModernClient();
  client.server.write(...HANDSHAKE);
  await client.server.answerTo(0);
  let next = 10_000;
  const request = fc.constantFrom('old', 'modern', 'unenveloped list', 'garbage', 'cancel', 'large');
  const property = fc.asyncProperty(
    fc.array(request, { minLength: 1, maxLength: 12 }),
    fc.array(fc.nat(), { maxLength: 6 }),
    async (kinds, places) => {
      const asked: number[] = [];
      const texts = kinds.map((kind) => {
        if (kind === 'garbage') return '{"jsonrpc":"2.0","id":\u0000 \u001b[2J';
        if (kind === 'cancel')
          return '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":424242}}';
        next += 1;
        asked.push(next);
        const head = { jsonrpc: '2.0', id: next };
        if (kind === 'old') return JSON.stringify({ ...head, method: 'ping' });
        if (kind === 'modern') return JSON.stringify({ ...head, method: 'server/discover', params: enveloped() });
        if (kind === 'large')
          return JSON.stringify({ ...head, method: 'nothing', params: enveloped({ x: 'x'.repeat(100_000) }) });
        return JSON.stringify({ ...head, method: 'prompts/list' });
      });
      const whole = Buffer.from(`${texts.join('\n')}\n`);
      for (const piece of cut(whole, places)) client.server.writeBytes(piece);
      for (const one of asked) {
        const { result, error } = await client.server.answerTo(one);
        expect(result ?? error).toBeDefined();
      }
    },
  );
  await fc.assert(property, { numRuns: 30 });
  const answers = client.server.stdout.flatMap((line) => (JSON.parse(line) as { id?: number }).id ?? []);
  expect(new Set(answers).size).toBe(answers.length);
});
