import { mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { createOwnFile, replaceOwnFile } from '../../../src/base/files/own-file.ts';
import { tempDir } from '../../rig/temp.ts';

function emptyFolder(): string {
  const temp = tempDir('own-file');
  onTestFinished(() => temp.close());
  return temp.tmp;
}

const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;

describe.each([
  ['replaceOwnFile', replaceOwnFile],
  ['createOwnFile', createOwnFile],
])('%s', (_, write) => {
  test('creates file and folder for the owner only, and leaves no temporary file', async () => {
    const path = join(emptyFolder(), 'a', 'b', 'file');
    await write(path, 'text');
    expect(await readFile(path, 'utf8')).toBe('text');
    expect([await modeOf(path), await modeOf(join(path, '..'))]).toEqual([0o600, 0o700]);
    expect(await readdir(join(path, '..'))).toEqual(['file']);
  });

  test('rejects if the file cannot be put in place, and leaves no temporary file', async () => {
    const parent = emptyFolder();
    const taken = join(parent, 'taken');
    await writeFile(taken, '');
    await expect(write(join(taken, 'file'), 'text')).rejects.toThrow(/ENOTDIR|EEXIST/);
    expect(await readdir(parent)).toEqual(['taken']);
  });
});

test('replaceOwnFile replaces a readable file, and a link instead of its target', async () => {
  const parent = emptyFolder();
  const [path, target] = [join(parent, 'file'), join(parent, 'target')];
  await writeFile(target, 'kept', { mode: 0o644 });
  await symlink(target, path);
  await replaceOwnFile(path, 'new');
  expect([await readFile(path, 'utf8'), await readFile(target, 'utf8')]).toEqual(['new', 'kept']);
  await expect(readlink(path)).rejects.toThrow('EINVAL');
  await replaceOwnFile(target, 'new');
  expect(await modeOf(target)).toBe(0o600);
});

test('replaceOwnFile leaves no temporary file if a folder has the name of the file', async () => {
  const parent = emptyFolder();
  await mkdir(join(parent, 'file', 'deep'), { recursive: true });
  await expect(replaceOwnFile(join(parent, 'file'), 'new')).rejects.toThrow(/EISDIR|ENOTEMPTY/);
  expect(await readdir(parent)).toEqual(['file']);
});

test('concurrent calls of createOwnFile create the file once, with one whole text', async () => {
  const path = join(emptyFolder(), 'file');
  const texts = Array.from({ length: 20 }, (_, index) => String(index).repeat(1_000));
  const created = await Promise.all(texts.map((text) => createOwnFile(path, text)));
  expect(created.filter(Boolean)).toHaveLength(1);
  expect(await readFile(path, 'utf8')).toBe(texts[created.indexOf(true)]);
  expect(await readdir(join(path, '..'))).toEqual(['file']);
});

test('createOwnFile does not write beside an existing file: the disk may be full, or the folder read-only', async () => {
  const path = join(emptyFolder(), 'file');
  await writeFile(path, 'kept');
  const { mtimeNs } = await stat(join(path, '..'), { bigint: true });
  expect(await createOwnFile(path, 'new')).toBe(false);
  expect(await readFile(path, 'utf8')).toBe('kept');
  expect((await stat(join(path, '..'), { bigint: true })).mtimeNs).toBe(mtimeNs);
});
