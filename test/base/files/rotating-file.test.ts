import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { RotatingFile } from '../../../src/base/files/rotating-file.ts';
import { tempDir } from '../../rig/temp.ts';

function tempFolder(): string {
  const temp = tempDir('rotating-file');
  onTestFinished(() => temp.close());
  return temp.path;
}

describe.each([
  ['append', async (file: RotatingFile, text: string) => await file.append(text)],
  ['appendSync', async (file: RotatingFile, text: string) => await Promise.resolve(file.appendSync(text))],
] as const)('%s', (_, append) => {
  test('creates folder and file readable only by their owner', async () => {
    const file = new RotatingFile(join(tempFolder(), 'a/b/file'));
    await append(file, 'one\n');
    await append(file, 'two\n');
    expect(readFileSync(file.path, 'utf8')).toBe('one\ntwo\n');
    expect([statSync(file.path).mode & 0o777, statSync(join(file.path, '..')).mode & 0o777]).toEqual([0o600, 0o700]);
  });

  test('keeps only the last full file besides the current one', async () => {
    const file = new RotatingFile(join(tempFolder(), 'file'), 10);
    for (const text of ['first 10 \n', 'second 10\n', 'third\n']) await append(file, text);
    expect(readFileSync(file.path, 'utf8')).toBe('third\n');
    expect(readFileSync(`${file.path}.1`, 'utf8')).toBe('second 10\n');
    expect(existsSync(`${file.path}.2`)).toBe(false);
  });

  test('makes a rotated file readable only by its owner', async () => {
    const file = new RotatingFile(join(tempFolder(), 'file'), 1);
    writeFileSync(file.path, 'readable by all');
    chmodSync(file.path, 0o644);
    await append(file, 'x\n');
    expect(statSync(`${file.path}.1`).mode & 0o777).toBe(0o600);
  });

  test('rejects if the file cannot be written', async () => {
    const path = join(tempFolder(), 'file');
    writeFileSync(path, '');
    await expect(append(new RotatingFile(join(path, 'below')), 'x')).rejects.toThrow(/ENOTDIR|EEXIST/);
  });
});

test('appending works when several processes find the file full at the same moment', async () => {
  const path = join(tempFolder(), 'file');
  writeFileSync(path, 'full');
  await Promise.all(Array.from({ length: 8 }, () => new RotatingFile(path, 4).append('a line\n')));
  expect(readFileSync(path, 'utf8')).toContain('a line\n');
});
