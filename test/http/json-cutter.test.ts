import fc from 'fast-check';
import { expect, test } from 'vitest';

import { CUT_MARK, JsonCutter } from '../../src/http/json-cutter.ts';

const LIMIT = 40;

/** The result for `text` in pieces of `size` bytes. */
function cut(text: string, size: number, limit = LIMIT, isOfLines = true): string {
  const cutter = new JsonCutter(limit, isOfLines);
  const bytes = Buffer.from(text);
  const kept: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) kept.push(Buffer.from(cutter.write(bytes.subarray(at, at + size))));
  return Buffer.concat(kept).toString('utf8');
}

/** Expects that each string is complete, or a prefix with the cut mark. */
function expectCut(actual: unknown, original: unknown): void {
  if (typeof actual === 'string' && typeof original === 'string') {
    if (actual === original) return;
    expect(actual.endsWith(CUT_MARK)).toBe(true);
    expect(original.startsWith(actual.slice(0, -CUT_MARK.length))).toBe(true);
    expect(Buffer.byteLength(JSON.stringify(original))).toBeGreaterThan(LIMIT);
  } else if (typeof actual === 'object' && actual !== null && typeof original === 'object' && original !== null) {
    expect(Object.keys(actual).length).toBe(Object.keys(original).length);
    const others = Object.values(original);
    Object.values(actual).forEach((value, index) => expectCut(value, others[index]));
  } else {
    expect(actual).toEqual(original);
  }
}

test('JSON stays valid and only long strings are cut, however the input is split', () => {
  const text = fc.string({
    unit: fc.constantFrom('a', '"', '\\', 'é', '漢', '😀', '\n', '\u0001', '{'),
    maxLength: 80,
    size: 'max',
  });
  fc.assert(
    fc.property(
      fc.jsonValue({ maxDepth: 3 }),
      fc.array(text, { maxLength: 4 }),
      fc.integer({ min: 1, max: 30 }),
      (value, texts, size) => {
        const whole: unknown = JSON.parse(JSON.stringify({ value, texts, last: 1 }));
        expectCut(JSON.parse(cut(JSON.stringify(whole), size)), whole);
      },
    ),
  );
});

test('an escape sequence is never cut in two', () => {
  for (let limit = 1; limit < 20; limit += 1)
    for (let size = 1; size < 20; size += 1)
      expect(() => JSON.parse(cut('{"a":"xyz\\u0041\\ud83d\\ude00\\\\\\"rest of it"}', size, limit))).not.toThrow();
});

test('a long string is cut to the limit, and later events are complete', () => {
  const event = (text: string): string => `data: ${JSON.stringify({ text, type: 'x' })}\n\n`;
  const out = cut(`${event('y'.repeat(10_000))}${event('short')}`, 1_000);
  expect(out).toBe(`${event('y'.repeat(LIMIT) + CUT_MARK)}${event('short')}`);
});

test('a line that ends inside a string does not affect later lines', () => {
  const broken = `data: {"text":"${'z'.repeat(100)}\n\n`;
  expect(cut(`${broken}data: {"text":"short"}\n\n`, 7)).toContain('data: {"text":"short"}\n\n');
});

/** A copy of `value` that empties each list and object nested in seven others. */
function emptied(value: unknown, depth = 1): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return depth > 7 ? [] : value.map((one) => emptied(one, depth + 1));
  if (depth > 7) return {};
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, emptied(one, depth + 1)]));
}

test('values nested deeper than seven levels are left out, and later values are complete', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '"', '\\', ']', '}', '[', '{', '\n'), maxLength: 8 });
  const deep = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { depthSize: 'large', maxDepth: 10 },
      text,
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(text, tie('tree'), { maxKeys: 3, noNullPrototype: true }),
    ),
  })).tree;
  fc.assert(
    fc.property(deep, fc.integer({ min: 1, max: 30 }), fc.boolean(), (value, size, isPretty) => {
      const whole = { value: [[value]], after: [1] };
      const json = isPretty ? JSON.stringify(whole, undefined, 1) : JSON.stringify(whole);
      expect(JSON.parse(cut(json, size, 1_000, !isPretty))).toEqual(emptied(whole));
    }),
    { numRuns: 500 },
  );
});

test('a line that ends within brackets does not affect later lines', () => {
  const broken = `data: ${'['.repeat(9)}"never closed\n\n`;
  expect(cut(`${broken}data: {"text":"short"}\n\n`, 7)).toContain('\n\ndata: {"text":"short"}\n\n');
});
