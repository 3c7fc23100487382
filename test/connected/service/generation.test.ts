import { chmod, copyFile, mkdir, readFile, rename, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { askGeneration, readGeneration } from '../../../src/connected/service/generation.ts';
import { rememberedGeneration } from '../../../src/connected/service/remembered-generation.ts';
import { tempDir } from '../../rig/temp.ts';

test.each([
  ['1.18.33', { number: 1, version: '1.18.33' }],
  ['v1.19.2\n', { number: 1, version: '1.19.2' }],
  ['a warning of a plugin\n1.18.33\n', { number: 1, version: '1.18.33' }],
  ['2.3.2', { number: 2, version: '2.3.2' }],
  ['opencode v2.1.2\n', { number: 2, version: '2.1.2' }],
  ['opencode v0.0.0-beta-19086', { number: 2, version: '0.0.0-beta-19086' }],
  ['lildax vlocal', { number: 2, isPreview: true }],
  ['0.0.0-dev-1', { number: 1, version: '0.0.0-dev-1' }],
  ['local', { number: 1 }],
  ['', { number: 1 }],
  ['opencode version unknown', { number: 1 }],
])('readGeneration reads %j as %j', (output, generation) => {
  expect(readGeneration(output)).toEqual(generation);
});

test('a program that prints nothing, or fails, counts as generation 1', async () => {
  await using folder = tempDir('generation');
  const program = join(folder.path, 'opencode');
  await writeFile(program, '#!/bin/sh\necho "opencode v2.1.2"\nexit 3\n');
  await chmod(program, 0o755);
  expect(await askGeneration(program, {})).toEqual({ number: 1 });
  await writeFile(program, '#!/bin/sh\n[ "$*" = --version ] && echo "opencode v2.1.2"\n');
  expect(await askGeneration(program, {})).toEqual({ number: 2, version: '2.1.2' });
  expect(await askGeneration(join(folder.path, 'missing'), {})).toEqual({ number: 1 });
});

test('askGeneration does not wait for a process that the program leaves behind', async () => {
  await using folder = tempDir('generation');
  const program = join(folder.path, 'opencode');
  // The process that stays holds the output open.
  await writeFile(program, '#!/bin/sh\nsleep 30 & echo $! >"$0.pid"\necho 2.0.0\n');
  await chmod(program, 0o755);
  expect(await askGeneration(program, { PATH: '/usr/bin:/bin' })).toEqual({ number: 2, version: '2.0.0' });
  process.kill(Number(await readFile(`${program}.pid`, 'utf8')));
});

test('a binary runs again only after its file changes, but a script or a link to another name runs each time', async () => {
  await using folder = tempDir('generation');
  const pathOf = (name: string): string => join(folder.path, name);
  const cachePath = pathOf('state/generation.json');
  const versionOf = async (program: string): Promise<string | undefined> =>
    (await rememberedGeneration(program, { env: {}, stateDir: pathOf('state') })).version;
  // A binary that prints its own version.
  await copyFile(process.execPath, pathOf('opencode'));
  const version = process.versions.node;
  expect(await versionOf(pathOf('opencode'))).toBe(version);
  expect((await stat(cachePath)).mode & 0o777).toBe(0o600);
  await writeFile(cachePath, (await readFile(cachePath, 'utf8')).replace(version, '9.9.9'));
  expect(await versionOf(pathOf('opencode'))).toBe('9.9.9');
  await utimes(pathOf('opencode'), 1, 1);
  expect(await versionOf(pathOf('opencode'))).toBe(version);

  const cacheBefore = await readFile(cachePath, 'utf8');
  await mkdir(pathOf('shims'));
  await rename(pathOf('opencode'), pathOf('manager'));
  await symlink(pathOf('manager'), pathOf('shims/opencode'));
  expect(await versionOf(pathOf('shims/opencode'))).toBe(version);
  await writeFile(pathOf('opencode'), '#!/bin/sh\necho 1.18.33\n', { mode: 0o755 });
  expect(await versionOf(pathOf('opencode'))).toBe('1.18.33');
  expect(await readFile(cachePath, 'utf8')).toBe(cacheBefore);
});
