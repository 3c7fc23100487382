import { expect, test } from 'vitest';

import { type Column, cutEnd, table, widthOf } from '../../src/commands/terminal/table.ts';

interface Row {
  readonly name: string;
  readonly what: string;
  readonly path: string;
}

const COLUMNS: readonly Column<Row>[] = [
  { title: 'NAME', cell: ({ name }) => name, least: 8 },
  { title: 'WHAT', cell: ({ what }) => what, least: 10 },
  { title: 'PATH', cell: ({ path }) => path, least: 10, keepsEnd: true, dropped: 1 },
];
const ROWS: readonly Row[] = [
  { name: 'one', what: 'a sentence that is rather long for it', path: '/home/ada/projects/one' },
  { name: '日本語', what: 'short', path: '' },
];
const draw = (width: number | undefined): readonly string[] => table(ROWS, COLUMNS, width, (text) => text);

test('a table for a pipe is not cut', () => {
  expect(draw(undefined)).toEqual([
    'NAME    WHAT                                   PATH',
    'one     a sentence that is rather long for it  /home/ada/projects/one',
    '日本語  short',
  ]);
});

test('a table that is too wide loses text of its widest column first, and the start of a path', () => {
  expect(draw(44)).toEqual([
    'NAME    WHAT               PATH',
    'one     a sentence that …  …ada/projects/one',
    '日本語  short',
  ]);
});

test('a column for which the terminal has no room is left out', () => {
  expect(draw(28)).toEqual(['NAME    WHAT', 'one     a sentence that is …', '日本語  short']);
});

test('no line is wider than the terminal', () => {
  for (let width = 20; width <= 90; width += 1)
    for (const line of draw(width)) expect(widthOf(line), `${width}: ${line}`).toBeLessThanOrEqual(width);
});

test('a column that is empty in every row is left out', () => {
  expect(table([{ name: 'a', what: '', path: '' }], COLUMNS, 80, (text) => text)).toEqual(['NAME', 'a']);
});

test('wide and combining characters are as wide as in a terminal', () => {
  expect([widthOf('日本'), widthOf('e\u0301'), widthOf('🙂'), widthOf('ab')]).toEqual([4, 1, 2, 2]);
  expect(cutEnd('日本語', 5)).toBe('日本…');
  expect(cutEnd('日本語', 4)).toBe('日…');
});
