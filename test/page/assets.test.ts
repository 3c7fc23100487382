import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { PAGE_FILES } from '../../src/page/target.ts';

const FOLDER = join(import.meta.dirname, '..', '..', 'src', 'page', 'assets');

test('each file of the page is served', async () => {
  expect([...PAGE_FILES.values()].toSorted()).toEqual((await readdir(FOLDER)).toSorted());
});

test.each([...PAGE_FILES.values()])('%s is ASCII and turns no text into elements, code or styles', async (name) => {
  const text = await readFile(join(FOLDER, name), 'utf8');
  // V8 keeps a text with one character beyond Latin-1 in two bytes per character.
  expect(text).toMatch(/^[\n\x20-\x7e]*$/);
  expect(text).not.toMatch(
    /\.(?:innerHTML|outerHTML|insertAdjacentHTML|srcdoc)|document\.write|\beval\(|new Function|style="/,
  );
});
