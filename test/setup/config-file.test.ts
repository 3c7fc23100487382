import { chmod, lstat, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { type Rewrite, rewriteConfig } from '../../src/setup/config-file.ts';
import { tempDir } from '../rig/temp.ts';

const append = (text = ''): string => `${text}new\n`;
const expectNoPause = (): Promise<never> => Promise.reject(new Error('Expected no wait'));
const rewrite = (path: string, change: Rewrite['change'] = append): Promise<string | undefined> =>
  rewriteConfig(path, { pause: expectNoPause, locks: false, change });

function folder(): string {
  const temp = tempDir('opencode-mcp-config-file');
  onTestFinished(() => temp.close());
  return temp.path;
}

test('rewriteConfig() replaces a file and keeps a copy beside it, both with the mode of the file', async () => {
  const path = join(folder(), 'config.json');
  await writeFile(path, 'old\n');
  for (const mode of [0o600, 0o640]) {
    await chmod(path, mode);
    const before = await readFile(path, 'utf8');
    const { ino } = await stat(path);
    const backup = await rewrite(path);
    expect(backup).toBe(`${path}.before-opencode-mcp`);
    expect(await readFile(path, 'utf8')).toBe(`${before}new\n`);
    expect(await readFile(`${path}.before-opencode-mcp`, 'utf8')).toBe(before);
    const now = await stat(path);
    expect([now.mode & 0o777, (await stat(backup ?? '')).mode & 0o777]).toEqual([mode, mode]);
    // A new inode: the file was replaced in one step.
    expect(now.ino).not.toBe(ino);
  }
});

test('rewriteConfig() keeps a link, and replaces and copies its target', async () => {
  const home = folder();
  await mkdir(join(home, 'dotfiles'));
  await writeFile(join(home, 'dotfiles', 'zed.json'), 'old\n');
  const path = join(home, 'settings.json');
  await symlink('dotfiles/zed.json', path);
  expect(await rewrite(path)).toBe(join(home, 'dotfiles', 'zed.json.before-opencode-mcp'));
  expect([(await lstat(path)).isSymbolicLink(), await readlink(path)]).toEqual([true, 'dotfiles/zed.json']);
  expect(await readFile(join(home, 'dotfiles', 'zed.json'), 'utf8')).toBe('old\nnew\n');
});

test('rewriteConfig() replaces an existing copy without following it if it is a link', async () => {
  const path = join(folder(), 'config.json');
  await writeFile(path, 'old\n');
  await writeFile(`${path}.other`, 'other\n');
  await symlink(`${path}.other`, `${path}.before-opencode-mcp`);
  await rewrite(path);
  expect(await readFile(`${path}.other`, 'utf8')).toBe('other\n');
  expect(await readFile(`${path}.before-opencode-mcp`, 'utf8')).toBe('old\n');
});

test('rewriteConfig() creates missing folders and a new file for its owner only, and leaves no other file', async () => {
  const path = join(folder(), 'Code', 'User', 'mcp.json');
  expect(await rewrite(path)).toBeUndefined();
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readdir(join(path, '..'))).toEqual(['mcp.json']);
});

test('rewriteConfig() refuses a binary file, a broken link and a directory', async () => {
  const home = folder();
  await writeFile(join(home, 'binary'), Buffer.from([0x7b, 0xff, 0x7d]));
  await symlink('nowhere', join(home, 'link'));
  await mkdir(join(home, 'directory'));
  await expect(rewrite(join(home, 'binary'))).rejects.toThrow('it is not UTF-8');
  await expect(rewrite(join(home, 'link'))).rejects.toThrow('a link to a file that does not exist');
  await expect(rewrite(join(home, 'directory'))).rejects.toThrow('not a regular file');
  expect((await readdir(home)).toSorted()).toEqual(['binary', 'directory', 'link', 'tmp']);
});

test('rewriteConfig() leaves no copy and no lock if the change throws', async () => {
  const home = folder();
  await writeFile(join(home, 'a'), 'old\n');
  const refuse = (): never => {
    throw new Error('refused');
  };
  await expect(rewriteConfig(join(home, 'a'), { pause: expectNoPause, locks: true, change: refuse })).rejects.toThrow(
    'refused',
  );
  expect((await readdir(home)).toSorted()).toEqual(['a', 'tmp']);
});

test('rewriteConfig() waits for the client to release its lock, and keeps its changes', async () => {
  const path = join(folder(), '.claude.json');
  await writeFile(path, 'old\n');
  await mkdir(`${path}.lock`);
  let waits = 0;
  await rewriteConfig(path, {
    locks: true,
    change: append,
    async pause() {
      waits += 1;
      if (waits < 3) return;
      // The client finishes its own change.
      await writeFile(path, "old\nclient's\n");
      const { rmdir } = await import('node:fs/promises');
      await rmdir(`${path}.lock`);
    },
  });
  expect(waits).toBe(3);
  expect(await readFile(path, 'utf8')).toBe("old\nclient's\nnew\n");
});

test('rewriteConfig() fails with advice if the client never releases its lock', async () => {
  const path = join(folder(), '.claude.json');
  await writeFile(path, 'old\n');
  await mkdir(`${path}.lock`);
  await expect(rewriteConfig(path, { locks: true, change: append, pause: () => Promise.resolve() })).rejects.toThrow(
    `its client has locked it (${path}.lock); end that client, or remove that folder if none runs`,
  );
  expect(await readFile(path, 'utf8')).toBe('old\n');
  expect((await stat(`${path}.lock`)).isDirectory()).toBe(true);
});
