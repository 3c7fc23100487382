import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');

/** As in docs/architecture.md: a room imports only rooms before it, and itself. */
const ROOMS = [
  'base',
  'config',
  'model',
  'http',
  'credentials',
  'opencode',
  'tailscale',
  'mdns',
  'discovery',
  'identity',
  'probing',
  'fleet',
  'turns',
  'watch',
  'operations',
  'notify',
  'page',
  'node',
  'mcp',
  'connected',
  'attach',
  'setup',
  'doctor',
  'commands',
];
const ENTRIES = ['src/command.ts', 'src/connected.ts', 'src/main.ts', 'src/serve.ts'];
/** The most files directly in one folder. */
const MOST_FILES = 15;

const files = (await readdir(join(root, 'src'), { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile())
  .map((entry) => relative(root, join(entry.parentPath, entry.name)));
const texts = new Map(
  await Promise.all(files.map(async (file) => [file, await readFile(join(root, file), 'utf8')] as const)),
);

test('every file but the entry points is in a room', () => {
  expect(files.filter((file) => file.split('/').length === 2).toSorted()).toEqual(ENTRIES);
  const rooms = new Set(files.filter((file) => !ENTRIES.includes(file)).map(roomOf));
  expect([...rooms].toSorted()).toEqual(ROOMS.toSorted());
});

test('imports go one way', () => {
  const upwardImports = [...texts].flatMap(([file, text]) =>
    [...text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)]
      .map(([, target = '']) => relative(root, resolve(root, dirname(file), target)))
      .filter((target) => rankOf(target) > rankOf(file))
      .map((target) => `${file} imports ${target}`),
  );
  expect(upwardImports).toEqual([]);
});

test(`a folder holds at most ${MOST_FILES} files`, () => {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
  expect([...counts].filter(([, count]) => count > MOST_FILES)).toEqual([]);
});

test('exported names are unique', () => {
  const filesByName = new Map<string, string[]>();
  for (const [file, text] of texts)
    for (const [, name = ''] of text.matchAll(
      /^export (?:async )?(?:function\*?|class|const|interface|type|enum) (\w+)/gm,
    ))
      filesByName.set(name, [...(filesByName.get(name) ?? []), file]);
  expect([...filesByName].filter(([, sameName]) => sameName.length > 1)).toEqual([]);
});

function roomOf(file: string): string {
  return file.split('/')[1] ?? '';
}

function rankOf(file: string): number {
  return ENTRIES.includes(file) ? ROOMS.length : ROOMS.indexOf(roomOf(file));
}
