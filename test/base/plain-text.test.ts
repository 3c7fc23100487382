import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  multiLine,
  quoted,
  quoteName,
  quoteShort,
  safeToShow,
  sentence,
  singleLine,
  StreamCleaner,
} from '../../src/base/plain-text.ts';

describe('singleLine', () => {
  it.each([
    ['plain text stays', 'api server (2)', 'api server (2)'],
    ['letters of every script stay', 'žluť 東京 مرحبا 🚀', 'žluť 東京 مرحبا 🚀'],
    ['line breaks and tabs become a space', 'a\nb\r\nc\td\re', 'a b c d e'],
    ['a run of breaks is one space', 'a\n\n\t\nb', 'a b'],
    ['other line separators become a space', 'a\u2028b\u2029c\u0085d\u000be\u000cf', 'a b c d e f'],
    ['C0 controls and DEL', 'a\u0000b\u0007c\u0008d\u007fe', 'abcde'],
    ['C1 controls', 'a\u0080b\u008dc', 'abc'],
    ['CSI sequences, whole', '\u001b[31;1mred\u001b[0m \u001b[2J\u001b[?25l', 'red '],
    ['CSI in 8-bit form', '\u009b31mred\u009b0m', 'red'],
    ['OSC ended by BEL', '\u001b]0;title\u0007shell', 'shell'],
    ['OSC ended by ST: a link', '\u001b]8;;http://evil\u001b\\click\u001b]8;;\u001b\\', 'click'],
    ['OSC in 8-bit form', '\u009d52;c;aGk=\u009cdone', 'done'],
    ['DCS, PM and APC', '\u001bPq#0\u001b\\a\u001b^x\u001b\\b\u001b_y\u001b\\c', 'abc'],
    ['other escapes: charset, reset', '\u001b(0a\u001bcb', 'ab'],
    ['an unterminated OSC hides no text', '\u001b]0;the rest stays', '0;the rest stays'],
    ['a lone escape at the end', 'a\u001b', 'a'],
    ['a sequence inside a sequence', '\u001b\u001b[31m[31mx', '[31mx'],
    [
      'bidi embeddings, overrides, isolates and marks',
      'a\u202ab\u202ec\u2066d\u2069e\u200ef\u200fg\u061ch',
      'abcdefgh',
    ],
    ['zero-width characters', 'a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg', 'abcdefg'],
    ['invisible fillers', 'a\u3164b\u115fc\u180ed', 'abcd'],
    ['tag characters', `hi${String.fromCodePoint(0xe0001, 0xe0068, 0xe0069, 0xe007f)}`, 'hi'],
    ['variation selectors, which can carry bytes', `hi${String.fromCodePoint(0xfe01, 0xe0100, 0xe01ef)}`, 'hi'],
    ['interlinear annotations', 'a\ufff9b\ufffac\ufffb', 'abc'],
    ['lone surrogates', 'a\ud83db\ude00c', 'abc'],
    ['surrogates that would pair up once the character between them is removed', '\ud83d\u200b\ude00', ''],
  ])('%s', (_, text, expected) => {
    expect(singleLine(text, 100)).toBe(expected);
  });

  it.each([
    ['abcde', 5, 'abcde'],
    ['abcdef', 5, 'abcd…'],
    ['🚀🚀🚀', 3, '🚀🚀🚀'],
    ['🚀🚀🚀🚀', 3, '🚀🚀…'],
    ['ab', 1, '…'],
    ['ab', 0, ''],
    ['', 0, ''],
  ])('cuts %j at %i code points', (text, max, expected) => {
    expect(singleLine(text, max)).toBe(expected);
  });

  it('counts after cleaning, so that invisible characters cannot push text out', () => {
    expect(singleLine(`${'\u200b'.repeat(1000)}name`, 10)).toBe('name');
  });

  it('takes linear time on unterminated introducers', () => {
    // A quadratic match would exceed the timeout of the test.
    expect(singleLine('\u009d'.repeat(1_000_000), 10)).toBe('');
    expect(singleLine('\u001b]'.repeat(1_000_000), 10)).toBe('');
    expect(singleLine('\u001b['.repeat(1_000_000), 10)).toBe('');
  });
});

describe('multiLine', () => {
  it.each([
    ['keeps line breaks and tabs', 'a\n\n\tb\n', 'a\n\n\tb\n'],
    ['normalises CRLF and lone CR', 'a\r\nb\rc', 'a\nb\nc'],
    ['turns other line separators into LF', 'a\u2028b\u2029c\u0085d', 'a\nb\nc\nd'],
    ['strips sequences, bidi and tags', '\u001b[31ma\u202eb\u{e0041}\n\u001b]0;t\u0007c', 'ab\nc'],
    ['matches no sequence across a line break', '\u001b]0;a\nb\u0007', '0;a\nb'],
  ])('%s', (_, text, expected) => {
    expect(multiLine(text, 100)).toBe(expected);
  });

  it('cuts by code point', () => {
    expect(multiLine('a\n🚀🚀🚀', 4)).toBe('a\n🚀…');
  });
});

describe('remote text in our own sentence', () => {
  it.each([
    ['plain', 'no credit', '"no credit"'],
    ['quotation marks', 'a "b" c', '"a \'b\' c"'],
    ['line breaks and sequences', 'a\n\u001b[31mb\u202e', '"a b"'],
    ['too long', 'x'.repeat(20), '"xxxxxxxxx…"'],
  ])('is quoted: %s', (_, text, expected) => {
    expect(quoted(text, 10)).toBe(expected);
  });

  it.each([
    ['api', 'api'],
    ['žluť@host:4096', 'žluť@host:4096'],
    ['my api', '"my api"'],
    ['a"b', '"a\\"b"'],
    // An invisible letter.
    ['a\u3164\u202eb', 'ab'],
    ['', '""'],
  ])('a name is quoted only if it needs quotes: %j', (name, expected) => {
    expect(quoteName(name)).toBe(expected);
  });

  it('a list of names is quoted name by name, and a limit applies to the name without its quotes', () => {
    expect(['a b', 'c'].map(quoteName)).toEqual(['"a b"', 'c']);
    expect(quoteShort('a b c', 3)).toBe('"a …"');
  });

  it.each([
    ['short', 'it says "no"', 'it says "no"'],
    ['cut after a quotation', 'it says "no" and on', 'it says "no" an…'],
    ['cut in a quotation', 'it says "no credit left"', 'it says "no cr…"'],
    ['cut in a quoted request that contains a quotation mark', 'for a: «b "c d e f g»', 'for a: «b "c d…»'],
    ['cut in a quoted name that contains quotation marks', '"a \\"b c d e f g h" is', '"a \\"b c d e f…"'],
  ])('a cut closes an open quotation: %s', (_, text, expected) => {
    expect(sentence(text, 16)).toBe(expected);
  });
});

describe('safeToShow', () => {
  it('cleans every string of a structure, including keys, and nothing else', () => {
    const value = { 'a\u202e': ['b\u001b[2J\n', 1, null, true, { c: '\u009b31md\t' }], e: undefined };
    expect(safeToShow(value)).toEqual({ a: ['b\n', 1, null, true, { c: 'd\t' }], e: undefined });
  });
});

describe('StreamCleaner', () => {
  it.each([
    ['an escape and its sequence', ['a\u001b', '[31mb'], 'ab'],
    ['a sequence in its middle', ['a\u001b[3', '1mb\u001b[', '0m'], 'ab'],
    ['8-bit', ['a\u009b', '2Jb'], 'ab'],
    ['a title', ['a\u001b]0;ti', 'tle\u001b', '\\b'], 'ab'],
    ['a surrogate pair', ['a\ud83d', '\ude00b'], 'a😀b'],
    ['a line break', ['a\r', '\nb\r', 'c'], 'a\nb\nc'],
    ['an unterminated title', ['a\u001b]0;b', '\nc'], 'a0;b\nc'],
  ])('cleans %s split across pieces', (_, pieces, expected) => {
    const cleaner = new StreamCleaner();
    expect(pieces.map((piece) => cleaner.add(piece)).join('') + cleaner.end()).toBe(expected);
  });

  it('does not hold text back after an unterminated introducer', () => {
    const cleaner = new StreamCleaner();
    expect(cleaner.add('a\u001b]')).toBe('a');
    expect(cleaner.add('x'.repeat(300))).toBe('x'.repeat(300));
    expect(cleaner.end()).toBe('');
  });
});

describe('any text', () => {
  // Written as ranges on purpose: the implementation uses Unicode properties.
  const FORBIDDEN =
    // oxlint-disable-next-line no-control-regex
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\u{e0000}-\u{e0fff}]/u;
  const text = fc.string({
    unit: fc.oneof(
      fc.constantFrom('\ud83d', '\ude00', ...Array.from('\u001b[]\\\u0007\u009b\u009c\r\n\t\u200b\u202em;3')),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
    ),
    maxLength: 60,
  });

  it('is cleaned in pieces with the same result as in one, without any forbidden character', () => {
    fc.assert(
      fc.property(fc.array(text, { maxLength: 8 }), (raw) => {
        // CR and surrogates join their neighbours once the sequence between them is removed; across pieces they may not.
        const pieces = raw.map((piece) => piece.replaceAll(/[\r\p{Surrogate}]/gu, ''));
        const cleaner = new StreamCleaner();
        const out = pieces.map((piece) => cleaner.add(piece)).join('') + cleaner.end();
        expect(out).not.toMatch(FORBIDDEN);
        expect(out).toBe(multiLine(pieces.join(''), Infinity));
      }),
      { numRuns: 2000 },
    );
  });

  it('is cleaned of forbidden characters, within the limit, and a second pass changes nothing', () => {
    fc.assert(
      fc.property(text, fc.integer({ min: 0, max: 40 }), (raw, max) => {
        for (const safe of [singleLine, multiLine]) {
          const shown = safe(raw, max);
          expect(shown).not.toMatch(FORBIDDEN);
          expect(Array.from(shown).length).toBeLessThanOrEqual(max);
          expect(safe(shown, max)).toBe(shown);
        }
        expect(singleLine(raw, max)).not.toMatch(/[\t\n]/);
      }),
      { numRuns: 2000 },
    );
  });
});
