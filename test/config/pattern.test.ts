import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { matchesPattern } from '../../src/config/pattern.ts';

/** A reference matcher that tries every length for every `*`. */
function matchesNaively(pattern: string, text: string): boolean {
  if (pattern === '') return text === '';
  if (pattern[0] !== '*')
    return text[0]?.toLowerCase() === pattern[0]?.toLowerCase() && matchesNaively(pattern.slice(1), text.slice(1));
  return Array.from({ length: text.length + 1 }).some((_, skip) => matchesNaively(pattern.slice(1), text.slice(skip)));
}

describe('matchesPattern', () => {
  it.each([
    ['api', 'api', true],
    ['api', 'API', true],
    ['api', 'api-2', false],
    ['api', 'my-api', false],
    ['api*', 'api', true],
    ['*', '', true],
    ['*.ts.net', 'box.tail1.ts.net', true],
    ['*.ts.net', 'box.ts.net.evil.example', false],
    ['*.ts.net', 'boxxts.net', false],
    ['a*b*c', 'abcbc', true],
    ['ab*ba', 'aba', false],
    ['a.c', 'abc', false],
    ['(a+)+$', 'aaaa', false],
    ['[ab]', 'a', false],
    ['a?', 'ab', false],
  ])('pattern %j, text %j: %j', (pattern, text, expected) => {
    expect(matchesPattern(pattern, text)).toBe(expected);
  });

  it('agrees with a naive matcher', () => {
    const letters = (alphabet: string) => fc.string({ unit: fc.constantFrom(...alphabet.split('')), maxLength: 8 });
    fc.assert(
      fc.property(letters('abA.**'), letters('abB.'), (pattern, text) => {
        expect(matchesPattern(pattern, text)).toBe(matchesNaively(pattern, text));
      }),
      { numRuns: 5000 },
    );
  });

  it('stays fast on a pattern that would make a backtracking matcher slow', () => {
    // A backtracking matcher would exceed the test's timeout.
    expect(matchesPattern(`${'a*'.repeat(2000)}b`, 'a'.repeat(20_000))).toBe(false);
  });
});
